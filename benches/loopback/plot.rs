//! Draws the shares of the raw limit as bars.

use std::path::Path;

use anyhow::ensure;
use clap::ValueEnum;
use plotters::{
    coord::Shift,
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use support::{contenders::Contender, stats};

use crate::figures::{Figures, Line, groups};

const FONT: &str = "Helvetica, Arial, sans-serif";
const WIDTH: u32 = 1040;
const PANEL_HEIGHT: u32 = 360;

/// The left edge of the legend, to the right of the bars.
const LEGEND_LEFT: i32 = 790;

/// The colours of the bars, in the order of the contenders without the raw limit.
const COLOURS: [RGBColor; 13] = [
    RGBColor(168, 174, 182),
    RGBColor(204, 208, 213),
    RGBColor(128, 128, 128),
    RGBColor(224, 138, 60),
    RGBColor(240, 190, 140),
    RGBColor(158, 202, 225),
    RGBColor(198, 219, 239),
    RGBColor(188, 189, 220),
    RGBColor(107, 174, 214),
    RGBColor(66, 146, 198),
    RGBColor(33, 113, 181),
    RGBColor(8, 81, 156),
    RGBColor(8, 48, 107),
];

/// None for the raw limit, which is drawn as a line.
fn colour(line: &Line) -> Option<RGBColor> {
    let mut bars = Contender::value_variants()
        .iter()
        .filter(|c| !c.is_blocking());
    let place = bars.position(|&bar| bar == line.contender)?;
    Some(COLOURS[place % COLOURS.len()])
}

/// Draws a panel for each source and framing, with a group of bars for each block size.
pub(crate) fn plot(path: &Path, results: &[Figures]) -> anyhow::Result<()> {
    let lines = || results.iter().flat_map(|figures| &figures.lines);
    ensure!(
        lines().any(|line| line.contender == Contender::Raw),
        "what is drawn are shares of the raw limit, which did not take part"
    );
    // One scale for all panels, so that they can be compared.
    let highest = lines().fold(1.0, |highest: f64, line| line.of_raw().max(highest));
    let panels: Vec<_> = groups(results).collect();
    let size = (WIDTH, PANEL_HEIGHT * panels.len() as u32);
    let root = SVGBackend::new(path, size).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((panels.len(), 1)).iter().zip(panels) {
        draw_panel(area, panel, highest * 1.1)?;
    }
    root.present()?;
    Ok(())
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw_panel(area: &Area<'_>, panel: &[Figures], top: f64) -> anyhow::Result<()> {
    let load = panel[0].load;
    let caption = format!("{}, {}", load.framing(), load.source.name());
    let sizes = panel.len() as f64;
    // The x axis counts sizes: the bars of the first are between 0 and 1.
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FONT, 18))
        .margin(12)
        .margin_right(WIDTH as i32 - LEGEND_LEFT + 12)
        .x_label_area_size(34)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..sizes, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(0)
        .y_label_formatter(&|share| format!("{share:.2}"))
        .y_desc("share of the raw limit")
        .label_style((FONT, 13))
        .draw()?;

    let bars = panel[0].lines.iter().filter(|line| colour(line).is_some());
    let width = 0.9 / bars.count().max(1) as f64;
    let mut left = 0.05;
    for (index, line) in panel[0].lines.iter().enumerate() {
        let colour = colour(line);
        let y = 60 + 24 * index as i32;
        let swatch = [(LEGEND_LEFT, y - 7), (LEGEND_LEFT + 14, y + 7)];
        area.draw(&Rectangle::new(swatch, colour.unwrap_or(BLACK).filled()))?;
        let name = text(area, HPos::Left, VPos::Center);
        area.draw_text(line.contender.name(), &name, (LEGEND_LEFT + 22, y))?;
        if let Some(colour) = colour {
            let shares = panel.iter().map(|figures| figures.lines[index].of_raw());
            chart.draw_series(shares.enumerate().map(|(group, share)| {
                let x = group as f64 + left;
                Rectangle::new([(x, 0.0), (x + width * 0.92, share)], colour.filled())
            }))?;
            left += width;
        }
    }
    let limit = [(0.0, 1.0), (sizes, 1.0)];
    chart.draw_series(LineSeries::new(limit, BLACK.stroke_width(2)))?;
    let (_, above) = area.get_base_pixel();
    for (group, figures) in panel.iter().enumerate() {
        let (x, y) = chart.backend_coord(&(group as f64 + 0.5, 0.0));
        let name = text(area, HPos::Center, VPos::Top);
        area.draw_text(&stats::bytes(figures.load.size), &name, (x, y - above + 10))?;
    }
    Ok(())
}

fn text<'a>(area: &Area<'_>, h: HPos, v: VPos) -> TextStyle<'a> {
    (FONT, 14).into_text_style(area).pos(Pos::new(h, v))
}
