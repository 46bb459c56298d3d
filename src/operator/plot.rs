//! The last hour as a picture: live calls as an area with the cap as a line above it, and refusals
//! as bars below. Pure: numbers in, coordinates out.

use std::fmt::Write;

use serde::Serialize;

use crate::operator::history::{SAMPLE, SAMPLES, Sample};

/// The picture's own units: three for each sample, and what is above and below the line.
const STEP: usize = 3;
const WIDTH: usize = SAMPLES * STEP;
const HEIGHT: u32 = 160;
const BARS: u32 = 40;
/// How much of the hour one row of the table has.
const ROW: usize = 20;

/// The last hour as a picture, and as a table for whoever does not see it.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plot {
    pub width: usize,
    pub height: u32,
    pub bars_height: u32,
    /// What the top of the picture stands for.
    pub top: u32,
    /// The path of the live calls; blank where there are none.
    pub area: String,
    /// How high the cap is.
    pub cap_y: u32,
    pub bars: Vec<Bar>,
    pub most_refused: u32,
    pub refused: u32,
    pub peak: u32,
    pub rows: Vec<Row>,
}

#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Bar {
    pub x: usize,
    pub height: u32,
}

/// Five minutes.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// How many minutes ago they began and ended.
    pub from: u64,
    pub to: u64,
    pub peak: u32,
    pub refused: u32,
}

impl Plot {
    /// Draws samples, the newest first.
    pub fn of(samples: &[Sample], cap: u32) -> Self {
        let peak = samples.iter().map(|it| it.live).max().unwrap_or(0);
        // The cap is always in the picture, with some air above it.
        let top = peak.max(cap).max(1);
        let top = top + top.div_ceil(10);
        let y = |live: u32| HEIGHT - scaled(live, top, HEIGHT);
        let most_refused = samples.iter().map(|it| it.refused).max().unwrap_or(0);
        let x = |at: usize| WIDTH.saturating_sub((at + 1) * STEP);
        let mut area = String::new();
        if !samples.is_empty() {
            let oldest = x(samples.len() - 1);
            let _ = write!(area, "M{oldest} {HEIGHT}"); // A string takes everything.
            for (at, sample) in samples.iter().enumerate().rev() {
                let _ = write!(area, "V{}H{}", y(sample.live), x(at) + STEP);
            }
            let _ = write!(area, "V{HEIGHT}Z");
        }
        let refusing = samples.iter().enumerate().filter(|(_, it)| it.refused > 0);
        let bars = refusing.map(|(at, sample)| Bar {
            x: x(at),
            height: scaled(sample.refused, most_refused, BARS).max(2),
        });
        let minutes = |samples: usize| SAMPLE.as_secs() * samples as u64 / 60;
        let rows = samples.chunks(ROW).enumerate().map(|(row, part)| Row {
            from: minutes((row + 1) * ROW),
            to: minutes(row * ROW),
            peak: part.iter().map(|it| it.live).max().unwrap_or(0),
            refused: part.iter().map(|it| it.refused).sum(),
        });
        Self {
            width: WIDTH,
            height: HEIGHT,
            bars_height: BARS,
            top,
            area,
            cap_y: y(cap),
            bars: bars.collect(),
            most_refused,
            refused: samples.iter().map(|it| it.refused).sum(),
            peak,
            rows: rows.collect(),
        }
    }
}

fn scaled(value: u32, top: u32, height: u32) -> u32 {
    let scaled = u64::from(value) * u64::from(height) / u64::from(top.max(1));
    u32::try_from(scaled).unwrap_or(height).min(height)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_at_the_right_and_the_cap_in_the_picture() {
        let sample = |live, refused| Sample { live, refused };
        let plot = Plot::of(&[sample(10, 0), sample(5, 4), sample(0, 1)], 10);
        assert_eq!((plot.top, plot.peak, plot.refused), (11, 10, 5));
        assert_eq!(plot.area, "M711 160V160H714V88H717V15H720V160Z");
        assert_eq!(plot.cap_y, 15);
        let bar = |x, height| Bar { x, height };
        assert_eq!(plot.bars, [bar(714, 40), bar(711, 10)]);
        let row = Row {
            from: 5,
            to: 0,
            peak: 10,
            refused: 5,
        };
        assert_eq!(plot.rows, [row]);
    }

    #[test]
    fn an_empty_hour_is_an_empty_picture() {
        let plot = Plot::of(&[], 15);
        assert_eq!(
            (plot.area.as_str(), plot.bars.len(), plot.rows.len()),
            ("", 0, 0)
        );
        let full = Plot::of(&vec![Sample::default(); SAMPLES], 15);
        assert_eq!(full.rows.len(), 12);
        assert!(full.area.starts_with("M0 160V160H3"), "{}", full.area);
    }
}
