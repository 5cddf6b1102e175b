//! The same in bars.

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum;
use plotters::{
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use crate::{
    figures::{Figures, groups},
    support::{contenders::Contender, stats},
};

const INK: RGBColor = RGBColor(36, 41, 47);
const FAINT: RGBColor = RGBColor(222, 226, 230);

/// The bars, in the order of the contenders without the raw limit; lighter to darker within a kind.
const COLOURS: [RGBColor; 7] = [
    RGBColor(168, 174, 182),
    RGBColor(224, 138, 60),
    RGBColor(240, 190, 140),
    RGBColor(158, 202, 225),
    RGBColor(107, 174, 214),
    RGBColor(66, 146, 198),
    RGBColor(8, 69, 148),
];

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

/// None for the raw limit, which is a line and no bar.
fn colour(contender: Contender) -> Option<RGBColor> {
    let mut bars = Contender::value_variants()
        .iter()
        .filter(|c| !c.is_blocking());
    let place = bars.position(|&bar| bar == contender)?;
    Some(COLOURS[place % COLOURS.len()])
}

/// A panel of grouped bars for each source and framing, a group for each block size.
pub(crate) fn plot(path: &Path, results: &[Figures]) -> anyhow::Result<()> {
    let lines = || results.iter().flat_map(|figures| &figures.lines);
    ensure!(
        lines().any(|line| line.contender == Contender::Raw),
        "what is drawn are shares of the raw limit, which did not take part"
    );
    let panels: Vec<_> = groups(results).collect();
    let height = PANEL_TOP + PANEL_STEP * panels.len() as i32 - 20;
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
    let headline = "Whole blocks over TCP: throughput as a share of the raw limit";
    root.draw_text(headline, &title, (LEFT - 50, 20))?;

    let label = text(14, HPos::Left, VPos::Center);
    let (mut x, mut y) = (LEFT - 50, LEGEND_TOP);
    for line in &results[0].lines {
        let name = line.contender.name();
        let width = 20 + name.len() as i32 * 7;
        if x + width > RIGHT {
            (x, y) = (LEFT - 50, y + LEGEND_STEP);
        }
        match colour(line.contender) {
            Some(colour) => {
                let swatch = [(x, y - 8), (x + 14, y + 6)];
                root.draw(&Rectangle::new(swatch, colour.filled()))?;
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
    let highest = lines().fold(1.1, |highest: f64, line| line.of_raw().max(highest));
    for (index, figures) in panels.iter().enumerate() {
        let top = PANEL_TOP + PANEL_STEP * index as i32;
        let y_of = |share: f64| {
            let usable = f64::from(PANEL_HEIGHT - 20);
            top + PANEL_HEIGHT - (share / highest * usable).round() as i32
        };

        let load = figures[0].load;
        let heading = format!("{}, {}", load.framing(), load.source.name());
        let above = text(15, HPos::Left, VPos::Top);
        root.draw_text(&heading, &above, (LEFT, top - 8))?;
        let sideways = text(14, HPos::Center, VPos::Center)
            .transform(plotters::style::FontTransform::Rotate270);
        let middle = top + PANEL_HEIGHT / 2 + 10;
        root.draw_text("share of the raw limit", &sideways, (LEFT - 52, middle))?;

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
            let bars = figures.lines.iter();
            let bars: Vec<_> = bars
                .filter_map(|line| Some((colour(line.contender)?, line.of_raw())))
                .collect();
            let width = (group - 30) / bars.len().max(1) as i32;
            let inset = (group - width * bars.len() as i32) / 2;
            for (bar, (colour, share)) in bars.iter().enumerate() {
                let x = start + inset + width * bar as i32;
                let corners = [(x, y_of(*share)), (x + width - 3, y_of(0.0))];
                root.draw(&Rectangle::new(corners, colour.filled()))?;
                // At the foot of the bar, where the line at 1.0 does not strike it through.
                let value = match colour.0 < 100 {
                    true => foot(&WHITE),
                    false => foot(&INK),
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
