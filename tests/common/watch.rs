//! What `tests/tools/watch.mjs` sees of browsers, ten times a second.

use std::fmt;
use std::time::Duration;

use serde_json::Value;

use super::tool::Tool;

/// Starting browsers on two busy cores takes this long at worst.
const FLOWING: Duration = Duration::from_secs(180);
/// Between two events of a driver whose browsers live.
const SILENCE: Duration = Duration::from_secs(60);

/// A driver under way and what it has said.
#[derive(Debug)]
pub struct Watch {
    tool: Tool,
    samples: Vec<Value>,
}

impl Watch {
    /// Once media flows on all pages of the plan.
    pub fn new(tool: Tool) -> Self {
        tool.wait("flowing", FLOWING);
        Self { tool, samples: Vec::new() }
    }

    /// Reads on until a sample of the page `who` is as described; at most `patience` of the
    /// page's own time. Returns when that was, in ms since 1970.
    ///
    /// # Panics
    ///
    /// After `patience`, with the last sample.
    pub fn until(
        &mut self,
        who: &str,
        what: &str,
        patience: Duration,
        seen: impl Fn(&Value) -> bool,
    ) -> u64 {
        let mut first = None;
        loop {
            let sample = self.tool.wait("sample", SILENCE);
            let at = at(&sample);
            let ours = sample["as"] == who;
            let found = ours && seen(&sample);
            if ours && !found {
                let since = *first.get_or_insert(at);
                assert!(
                    Duration::from_millis(at - since) <= patience,
                    "{who}: not {what} in {patience:?}: {sample:#}"
                );
            }
            self.samples.push(sample);
            if found {
                return at;
            }
        }
    }

    /// Reads on until the page's clock says `when`, ms since 1970.
    pub fn until_time(&mut self, who: &str, when: u64) {
        let patience = Duration::from_secs(600);
        self.until(who, "as late as that", patience, |sample| at(sample) >= when);
    }

    /// What was seen of `who` from `from` to `to`, ms since 1970.
    pub fn span(&self, who: &str, from: u64, to: u64) -> Span<'_> {
        let ours = self.samples.iter().filter(|sample| sample["as"] == who);
        Span(ours.filter(|sample| (from..=to).contains(&at(sample))).collect())
    }

    /// Reads all that has been said and waits for one more sample of the page; when that was
    /// taken, ms since 1970.
    pub fn latest(&mut self, who: &str) -> u64 {
        self.samples.extend(self.tool.said());
        self.until(who, "there", SILENCE, |_| true)
    }

    /// A counter of the page's video in its last sample.
    pub fn number(&self, who: &str, field: &str) -> f64 {
        let last = self.samples.iter().rev().find(|sample| sample["as"] == who);
        video(last.expect("a sample"), field).as_f64().expect("a number")
    }
}

fn at(sample: &Value) -> u64 {
    sample["at"].as_u64().unwrap_or_else(|| panic!("not a sample: {sample:#}"))
}

/// The first video of a sample.
pub fn video<'s>(sample: &'s Value, field: &str) -> &'s Value {
    &sample["video"][0][field]
}

/// Successive samples of one page.
#[derive(Debug)]
pub struct Span<'w>(Vec<&'w Value>);

impl Span<'_> {
    fn ends(&self) -> (&Value, &Value) {
        assert!(self.0.len() > 10, "only {} samples", self.0.len());
        (self.0[0], self.0[self.0.len() - 1])
    }

    /// Frames a second.
    pub fn frame_rate(&self) -> f64 {
        let (first, last) = self.ends();
        let frames = |sample: &Value| sample["frames"].as_f64().expect("frames");
        (frames(last) - frames(first)) / ((at(last) - at(first)) as f64 / 1_000.0)
    }

    /// How much a counter of the video grew.
    pub fn grown(&self, field: &str) -> f64 {
        let (first, last) = self.ends();
        let value = |sample: &Value| video(sample, field).as_f64().unwrap_or(0.0);
        value(last) - value(first)
    }

    /// How many values a field of the video had.
    pub fn distinct(&self, field: &str) -> usize {
        let mut values: Vec<String> =
            self.0.iter().map(|sample| video(sample, field).to_string()).collect();
        values.sort_unstable();
        values.dedup();
        values.len()
    }

    /// The longest time between two frames, seconds. The browser sums the squares of these times:
    /// between two samples none is longer than the root of what was added.
    pub fn longest_gap(&self) -> f64 {
        let squares =
            |sample: &Value| video(sample, "totalSquaredInterFrameDelay").as_f64().unwrap_or(0.0);
        let between = self.0.windows(2).map(|pair| (squares(pair[1]) - squares(pair[0])).sqrt());
        // A picture that stands at the end has no next frame yet.
        let frames = |sample: &Value| sample["frames"].as_f64();
        let (_, last) = self.ends();
        let moved = self.0.iter().rev().find(|sample| frames(sample) != frames(last));
        let standing = moved.map_or(f64::INFINITY, |moved| (at(last) - at(moved)) as f64 / 1_000.0);
        between.fold(standing, f64::max)
    }
}

impl fmt::Display for Span<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} frames/s, longest gap {:.3} s", self.frame_rate(), self.longest_gap())?;
        for name in [
            "framesDecoded",
            "keyFramesDecoded",
            "framesDropped",
            "freezeCount",
            "totalFreezesDuration",
            "packetsReceived",
            "packetsLost",
            "retransmittedPacketsReceived",
            "nackCount",
            "pliCount",
            "bytesReceived",
        ] {
            write!(f, ", {name} {}", self.grown(name))?;
        }
        Ok(())
    }
}
