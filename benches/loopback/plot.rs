//! The same in bars.

use std::path::Path;

use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    contenders::{CONTENDERS, Contender},
    figures::Figures,
    support::stats,
};

const INK: RGBColor = RGBColor(36, 41, 47);
const FAINT: RGBColor = RGBColor(222, 226, 230);
const FONT: &str = "Helvetica, Arial, sans-serif";

/// Where the names of the contenders stand, in pixels of the picture; there is room for two lines.
const LEGEND_TOP: i32 = 69;
const LEGEND_STEP: i32 = 24;

/// Where a framing's bars are drawn.
const PANEL_TOP: i32 = 134;
const PANEL_HEIGHT: i32 = 250;
const PANEL_STEP: i32 = 350;
const LEFT: i32 = 80;
const RIGHT: i32 = 1010;

/// A panel of grouped bars for each framing, a group for each block size.
pub(crate) fn plot(path: &Path, results: &[Figures]) -> anyhow::Result<()> {
    let framings: Vec<Vec<&Figures>> = [false, true]
        .iter()
        .map(|&prefixed| {
            let of_framing = |figures: &&Figures| figures.load.prefixed == prefixed;
            results.iter().filter(of_framing).collect()
        })
        .filter(|figures: &Vec<_>| !figures.is_empty())
        .collect();
    let height = PANEL_TOP + PANEL_STEP * framings.len() as i32 - 20;
    let root = SVGBackend::new(path, ((RIGHT + 30) as u32, height as u32)).into_drawing_area();
    root.fill(&WHITE)?;

    let text = |size: i32, h, v| {
        TextStyle::from((FONT, size))
            .color(&INK)
            .pos(Pos::new(h, v))
    };
    let foot = |colour: &'static RGBColor| {
        let style = TextStyle::from((FONT, 12)).color(colour);
        style.pos(Pos::new(HPos::Center, VPos::Bottom))
    };
    let title = text(22, HPos::Left, VPos::Top);
    let headline = "Whole blocks over TCP: throughput as a share of the bare socket's";
    root.draw_text(headline, &title, (LEFT - 50, 20))?;

    let label = text(14, HPos::Left, VPos::Center);
    let (mut x, mut y) = (LEFT - 50, LEGEND_TOP);
    let contenders = CONTENDERS.iter().filter(|contender| !contender.is_raw());
    for contender in contenders.map(Some).chain([None]) {
        let name = contender.map_or("raw", |contender| contender.name());
        let width = 20 + name.len() as i32 * 7;
        if x + width > RIGHT {
            (x, y) = (LEFT - 50, y + LEGEND_STEP);
        }
        match contender {
            Some(contender) => {
                let swatch = [(x, y - 8), (x + 14, y + 6)];
                root.draw(&Rectangle::new(swatch, contender.colour().filled()))?;
            }
            None => {
                let swatch = vec![(x, y - 1), (x + 14, y - 1)];
                root.draw(&PathElement::new(swatch, INK.stroke_width(2)))?;
            }
        }
        root.draw_text(name, &label, (x + 20, y))?;
        x += width + 22;
    }

    // One scale for all panels, so that they can be compared.
    let highest = results
        .iter()
        .flat_map(|figures| &figures.lines)
        .filter(|line| line.contender.is_some_and(|contender| !contender.is_raw()))
        .fold(1.1, |highest: f64, line| line.of_raw.max(highest));
    for (index, figures) in framings.iter().enumerate() {
        let top = PANEL_TOP + PANEL_STEP * index as i32;
        let y_of = |share: f64| {
            let usable = f64::from(PANEL_HEIGHT - 20);
            top + PANEL_HEIGHT - (share / highest * usable).round() as i32
        };

        let heading = match figures[0].load.prefixed {
            true => "length-prefixed",
            false => "exact length (LengthDelimitedCodec with its header)",
        };
        let above = text(15, HPos::Left, VPos::Top);
        root.draw_text(heading, &above, (LEFT, top - 8))?;
        let sideways = text(14, HPos::Center, VPos::Center)
            .transform(plotters::style::FontTransform::Rotate270);
        let middle = top + PANEL_HEIGHT / 2 + 10;
        root.draw_text("share of raw", &sideways, (LEFT - 52, middle))?;

        let tick = text(13, HPos::Right, VPos::Center);
        for step in 0..=((highest / 0.25) as i32) {
            let share = f64::from(step) * 0.25;
            let y = y_of(share);
            root.draw(&PathElement::new(vec![(LEFT, y), (RIGHT, y)], FAINT))?;
            root.draw_text(&format!("{share:.2}"), &tick, (LEFT - 8, y))?;
        }

        let group = (RIGHT - LEFT) / figures.len() as i32;
        for (place, figures) in figures.iter().enumerate() {
            let start = LEFT + group * place as i32;
            let bars: Vec<_> = figures
                .lines
                .iter()
                .filter_map(|line| Some((line.contender?, line.of_raw)))
                .filter(|(contender, _)| !contender.is_raw())
                .collect();
            let width = (group - 30) / bars.len() as i32;
            let inset = (group - width * bars.len() as i32) / 2;
            for (bar, (contender, share)) in bars.iter().enumerate() {
                let x = start + inset + width * bar as i32;
                let corners = [(x, y_of(*share)), (x + width - 3, y_of(0.0))];
                root.draw(&Rectangle::new(corners, contender.colour().filled()))?;
                // At the foot of the bar, where the line at 1.0 does not strike it through.
                let value = match contender {
                    Contender::Next | Contender::NextBatch => foot(&WHITE),
                    _ => foot(&INK),
                };
                let foot_of = (x + (width - 3) / 2, y_of(0.0) - 6);
                root.draw_text(&format!("{share:.2}"), &value, foot_of)?;
            }
            let below = text(14, HPos::Center, VPos::Top);
            let size = stats::bytes(figures.load.size);
            root.draw_text(&size, &below, (start + group / 2, y_of(0.0) + 8))?;
        }
        let limit = PathElement::new(
            vec![(LEFT, y_of(1.0)), (RIGHT, y_of(1.0))],
            INK.stroke_width(2),
        );
        root.draw(&limit)?;
        let axis = text(14, HPos::Center, VPos::Top);
        let below = ((LEFT + RIGHT) / 2, y_of(0.0) + 32);
        root.draw_text("block size", &axis, below)?;
    }
    root.present()?;
    Ok(())
}
