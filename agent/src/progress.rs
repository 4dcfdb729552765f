//! Shows a person how far a download is: a bar on a terminal, a line every few seconds anywhere else.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::sync::watch;
use tokio::time::{Instant, interval};

/// How often a line is written where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows the bytes that `progress` tells, until it is dropped. Writes to standard error alone.
pub async fn show(progress: watch::Receiver<u64>, total: u64, label: &str) {
    if io::stderr().is_terminal() {
        show_bar(progress, total, label).await;
    } else {
        show_lines(progress, total, label).await;
    }
}

async fn show_bar(mut progress: watch::Receiver<u64>, total: u64, label: &str) {
    let style =
        ProgressStyle::with_template("{prefix} {wide_bar:.cyan/dim} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .expect("the template is a constant");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(style);
    bar.set_prefix(label.to_owned());
    // What was here before this run must not count as speed.
    bar.set_position(*progress.borrow());
    bar.reset_eta();
    // Restores the terminal's line also when the download ends in the middle.
    let bar = Cleared(bar);
    while progress.changed().await.is_ok() {
        bar.0.set_position(*progress.borrow());
    }
}

struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

async fn show_lines(progress: watch::Receiver<u64>, total: u64, label: &str) {
    let mut ticks = interval(LINE_INTERVAL);
    ticks.tick().await;
    let mut before = (*progress.borrow(), Instant::now());
    loop {
        ticks.tick().await;
        let now = (*progress.borrow(), Instant::now());
        eprintln!("{label} {}", line(now.0, total, now.0.saturating_sub(before.0), now.1 - before.1));
        before = now;
    }
}

fn line(done: u64, total: u64, gained: u64, time: Duration) -> String {
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100);
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
    let speed = gained.saturating_mul(1000) / millis;
    format!("{} of {} ({percent} %), {}/s", HumanBytes(done), HumanBytes(total), HumanBytes(speed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_amount_share_and_speed() {
        let mebibyte = 1024 * 1024;
        let text = line(25 * mebibyte, 100 * mebibyte, 10 * mebibyte, Duration::from_secs(5));
        assert_eq!(text, "25.00 MiB of 100.00 MiB (25 %), 2.00 MiB/s");
        assert_eq!(line(0, 0, 0, Duration::ZERO), "0 B of 0 B (100 %), 0 B/s");
    }
}
