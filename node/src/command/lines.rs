//! `invite create`: a line with which one person registers.

use std::time::Duration;

use clap::{Args, Subcommand};
use protocol::invite::LineKind;
use serde_json::json;

use super::Opened;
use super::report::{Failure, Report};
use crate::clock::{SystemClock, SystemEntropy};
use crate::pairing::{self, LINE_LIFETIME};

#[derive(Debug, Subcommand)]
pub(super) enum Invite {
    /// Make a line with which one person registers, once.
    Create(Lifetime),
}

#[derive(Debug, Args)]
pub(super) struct Lifetime {
    /// How long it works: 30m, 12h, 7d.
    #[arg(long, value_parser = duration)]
    expires: Option<Duration>,
}

pub(super) async fn invite(opened: &Opened, invite: &Invite) -> Result<Report, Failure> {
    let Invite::Create(lifetime) = invite;
    made(opened, LineKind::Person, lifetime).await
}

/// Makes a line and shows it, and nothing else on stdout, so that it can be piped.
pub(super) async fn made(
    opened: &Opened,
    kind: LineKind,
    lifetime: &Lifetime,
) -> Result<Report, Failure> {
    let lifetime = lifetime.expires.unwrap_or(LINE_LIFETIME);
    let at = opened.reachable()?;
    let made =
        pairing::make_line(&opened.store, (&SystemClock, &SystemEntropy), kind, at, lifetime)
            .await?;
    let line = made.line.to_string();
    Ok(Report::new(line.clone(), &json!({"line": line, "expires_ms": made.expires.ms()})))
}

fn duration(text: &str) -> Result<Duration, String> {
    let bad = || "write a number and s, m, h or d, such as 7d".to_owned();
    let unit = text.chars().next_back().ok_or_else(bad)?;
    let number: u64 = text.strip_suffix(unit).and_then(|n| n.parse().ok()).ok_or_else(bad)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 24 * 3600,
        _ => return Err(bad()),
    };
    match number.checked_mul(seconds) {
        Some(total) if (1..=LONGEST).contains(&total) => Ok(Duration::from_secs(total)),
        _ => Err("between one second and a year".to_owned()),
    }
}

const LONGEST: u64 = 366 * 24 * 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_and_nonsense_is_not() {
        assert_eq!(duration("7d").unwrap(), Duration::from_hours(7 * 24));
        assert_eq!(duration("91s").unwrap(), Duration::from_secs(91));
        for bad in ["", "d", "0d", "-1d", "1w", "1.5h", "99999999999999999999d", "400d", "7ä"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
