//! Shows how far something is: a bar for a person, a line at every tenth in a pipe, nothing when asked to be quiet.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::messages::Messages;

/// Fewest bytes that are worth a line for each tenth. Less is over before the first line is read.
const LINES_FROM: u64 = 16 * 1024 * 1024;

/// How far something is. Cheap to clone; all clones move the same bar.
#[derive(Debug, Clone)]
pub struct Progress {
    done: Arc<AtomicU64>,
    total: u64,
    label: &'static str,
    shape: Shape,
}

#[derive(Debug, Clone)]
enum Shape {
    Bar(ProgressBar),
    Lines(Messages),
    Nothing,
}

impl Progress {
    /// Starts to show the move of `total` bytes.
    pub fn bytes(messages: Messages, label: &'static str, total: u64) -> Self {
        let shape = if messages.is_live() {
            let bar = ProgressBar::new(total).with_message(label);
            let style = ProgressStyle::with_template(
                "{msg} [{bar:30}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}",
            );
            bar.set_style(style.expect("the template is well formed").progress_chars("=> "));
            Shape::Bar(bar)
        } else if messages.is_quiet() || total < LINES_FROM {
            Shape::Nothing
        } else {
            Shape::Lines(messages)
        };
        Self { done: Arc::default(), total, label, shape }
    }

    /// Makes one that shows nothing.
    pub fn hidden(label: &'static str) -> Self {
        Self { done: Arc::default(), total: 0, label, shape: Shape::Nothing }
    }

    /// Moves on.
    pub fn add(&self, bytes: u64) {
        let before = self.done.fetch_add(bytes, Ordering::Relaxed);
        self.show(before, before.saturating_add(bytes));
    }

    /// Jumps, ahead at a resume or back when something was lost.
    pub fn set(&self, position: u64) {
        self.done.store(position, Ordering::Relaxed);
        if let Shape::Bar(bar) = &self.shape {
            bar.set_position(position);
            // The bytes of an earlier run say nothing about the speed of this one.
            bar.reset_eta();
        }
    }

    /// Says something without tearing the bar.
    pub fn note(&self, messages: Messages, text: &str) {
        match &self.shape {
            Shape::Bar(bar) => bar.suspend(|| messages.say(text)),
            Shape::Lines(_) | Shape::Nothing => messages.say(text),
        }
    }

    /// Ends the showing and clears the line for what comes next.
    pub fn finish(&self) {
        if let Shape::Bar(bar) = &self.shape {
            bar.finish_and_clear();
        }
    }

    fn show(&self, before: u64, after: u64) {
        match &self.shape {
            Shape::Bar(bar) => bar.set_position(after),
            Shape::Lines(messages) => {
                if let Some(percent) = tenth_passed(before, after, self.total) {
                    let (done, total) = (HumanBytes(after), HumanBytes(self.total));
                    messages.say(&format!("{}: {done} of {total} ({percent} %)", self.label));
                }
            }
            Shape::Nothing => {}
        }
    }
}

/// Returns the tenth in percent that the step from `before` to `after` reached.
fn tenth_passed(before: u64, after: u64, total: u64) -> Option<u64> {
    let tenth = |bytes: u64| bytes.saturating_mul(10).checked_div(total).unwrap_or(10).min(10);
    (tenth(after) > tenth(before)).then(|| tenth(after) * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_once_for_each_tenth() {
        let steps: Vec<_> = (0..100).filter_map(|step| tenth_passed(step, step + 1, 100)).collect();
        assert_eq!(steps, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(tenth_passed(0, 55, 100), Some(50));
    }
}
