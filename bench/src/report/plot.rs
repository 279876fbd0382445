//! Curves as SVG, both axes logarithmic: what is flat is constant, what rises with the diagonal is proportional.

use plotters::prelude::*;

use super::results::Curve;
use crate::Outcome;

const SIZE: (u32, u32) = (640, 360);
const COLOURS: &[RGBColor] = &[
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
];

/// Draws a curve.
///
/// # Errors
/// When it has no points.
pub fn draw(curve: &Curve) -> Outcome<String> {
    let points: Vec<(f64, f64)> = curve.lines.values().flatten().copied().collect();
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(of).filter(|v| *v > 0.0);
        values.fold(None, |range: Option<(f64, f64)>, v| {
            let (low, high) = range.unwrap_or((v, v));
            Some((low.min(v), high.max(v)))
        })
    };
    let (x, y) = range(|p| p.0).zip(range(|p| p.1)).ok_or("a curve without points")?;
    let mut svg = String::new();
    paint(&mut svg, curve, x, (y.0 / 3.0, y.1 * 3.0)).map_err(|e| format!("plot: {e}"))?;
    Ok(svg)
}

fn paint(
    svg: &mut String,
    curve: &Curve,
    x: (f64, f64),
    y: (f64, f64),
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d((x.0..x.1 * 1.05).log_scale(), (y.0..y.1).log_scale())?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(curve.x.as_str())
        .y_desc(curve.y.as_str())
        .draw()?;
    for ((name, points), colour) in curve.lines.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        let colour = *colour;
        chart
            .draw_series(line)?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 16, y)], colour));
        chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, colour.filled())))?;
    }
    chart.configure_series_labels().background_style(WHITE).border_style(BLACK).draw()?;
    Ok(area.present()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_becomes_svg_with_text() {
        let lines = [("Waxwing".to_owned(), vec![(2.0, 30.0), (200.0, 31.0), (10_000.0, 32.0)])];
        let curve = Curve { x: "members".into(), y: "µs".into(), lines: lines.into() };
        let svg = draw(&curve).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("Waxwing") && svg.contains("members"));
        assert!(draw(&Curve::default()).is_err());
    }
}
