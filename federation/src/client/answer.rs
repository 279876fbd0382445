//! What an answer means: done, refused for good, or to be tried again.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use protocol::refusal::{Body, Lasting};
use protocol::{Code, Refusal};

use super::connection::Reply;
use crate::{Outcome, Why};

/// A request that was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// For good.
    Refused(Refusal),
    /// For now.
    Retry(Why, Option<Duration>),
}

impl From<Why> for Failure {
    fn from(why: Why) -> Self {
        Self::Retry(why, None)
    }
}

impl<T> From<Result<T, Failure>> for Outcome<T> {
    fn from(result: Result<T, Failure>) -> Self {
        match result {
            Ok(value) => Self::Done(value),
            Err(Failure::Refused(refusal)) => Self::Refused(refusal),
            Err(Failure::Retry(why, retry_after)) => Self::Retry { why, retry_after },
        }
    }
}

/// The longest wait that a peer may ask for; lanes try again at least every five minutes otherwise.
const MAX_WAIT: Duration = Duration::from_hours(1);

/// What a refusal's body may have; longer ones are read as none.
const REFUSAL_BYTES: usize = 16 * 1024;

/// The refusal in an answer, if it holds one of PROTOCOL §3.
pub(super) fn refusal(reply: &Reply) -> Option<Refusal> {
    let body = reply.body.get(..).filter(|b| b.len() <= REFUSAL_BYTES)?;
    serde_json::from_slice::<Body>(body).ok().map(Body::into_refusal)
}

/// Lets a success through and says what anything else means.
pub(super) fn succeeded(reply: Reply) -> Result<Reply, Failure> {
    let status = reply.status;
    if status.is_success() {
        return Ok(reply);
    }
    if !status.is_client_error() && !status.is_server_error() {
        // Nobody is followed to where a redirect points.
        return Err(Why::Answer(format!("it has the status {status}")).into());
    }
    let said = refusal(&reply);
    let passing = status.is_server_error() || matches!(status.as_u16(), 408 | 425 | 429);
    let refusal = said
        .unwrap_or_else(|| Refusal::because(code_of(status), format!("It said only {status}.")));
    let refusal = if passing { for_now(refusal) } else { refusal };
    if outside(refusal.code) {
        return Err(Failure::Retry(Why::Estranged(refusal), None));
    }
    if passing || refusal.code.lasting() == Lasting::Transient {
        let wait = wait(&reply.headers, &refusal);
        return Err(Failure::Retry(Why::Busy(refusal), wait));
    }
    Err(Failure::Refused(refusal))
}

/// A refusal under a status that says "later". Whatever else its code says, nothing is given up, dropped or built anew because of it: a peer may answer
/// with a 500 for ever.
fn for_now(refusal: Refusal) -> Refusal {
    match refusal.code {
        Code::RateLimited
        | Code::QueueFull
        | Code::DiskFull
        | Code::Unavailable
        | Code::PeerUnreachable
        | Code::Internal => refusal,
        _ => Refusal { code: Code::Unavailable, ..refusal },
    }
}

/// Refusals of us and not of what was sent: an entry must not be parked for them.
fn outside(code: Code) -> bool {
    matches!(
        code,
        Code::UnknownPeer | Code::PeerCertificate | Code::UnknownEndpoint | Code::UnknownVersion
    )
}

/// What a bare status of another kind of node says.
fn code_of(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::PeerCertificate,
        403 => Code::NotAllowed,
        404 | 405 | 410 => Code::UnknownEndpoint,
        409 => Code::Conflict,
        413 | 431 => Code::TooLarge,
        422 => Code::Invalid,
        429 => Code::RateLimited,
        507 => Code::DiskFull,
        408 | 425 | 500.. => Code::Unavailable,
        _ => Code::Malformed,
    }
}

fn wait(headers: &HeaderMap, refusal: &Refusal) -> Option<Duration> {
    let seconds =
        headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse().ok());
    let precise = refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
    precise.or(seconds.map(Duration::from_secs)).map(|wait| wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &str, retry_after: Option<&str>) -> Reply {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
        }
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: body.to_owned().into(),
        }
    }

    fn said(code: Code) -> String {
        serde_json::to_string(&Refusal::new(code).to_body()).unwrap()
    }

    #[test]
    fn every_status_and_code_is_done_refused_or_tried_again() {
        let fate = |status, body: &str| match succeeded(reply(status, body, None)) {
            Ok(_) => "done".to_owned(),
            Err(Failure::Refused(r)) => format!("refused {}", r.code),
            Err(Failure::Retry(Why::Busy(r), _)) => format!("busy {}", r.code),
            Err(Failure::Retry(Why::Estranged(r), _)) => format!("estranged {}", r.code),
            Err(Failure::Retry(Why::Answer(_), _)) => "answer".to_owned(),
            Err(Failure::Retry(why, _)) => panic!("{why:?}"),
        };
        for (status, body, expected) in [
            (200, String::new(), "done"),
            (201, String::new(), "done"),
            (202, String::new(), "done"),
            (101, String::new(), "answer"),
            (301, String::new(), "answer"),
            (307, String::new(), "answer"),
            (400, String::new(), "refused malformed"),
            (401, String::new(), "estranged peer-certificate"),
            (403, String::new(), "refused not-allowed"),
            (404, String::new(), "estranged unknown-endpoint"),
            (410, String::new(), "estranged unknown-endpoint"),
            (408, String::new(), "busy unavailable"),
            (413, String::new(), "refused too-large"),
            (425, String::new(), "busy unavailable"),
            (429, String::new(), "busy rate-limited"),
            (500, String::new(), "busy unavailable"),
            (502, "<html>".to_owned(), "busy unavailable"),
            (503, String::new(), "busy unavailable"),
            (507, String::new(), "busy disk-full"),
            (403, said(Code::UnknownPeer), "estranged unknown-peer"),
            (403, said(Code::PeerCertificate), "estranged peer-certificate"),
            (403, said(Code::DomainMismatch), "refused domain-mismatch"),
            (404, said(Code::NotFound), "refused not-found"),
            (409, said(Code::StaleEpoch), "busy stale-epoch"),
            (409, said(Code::ChainMismatch), "refused chain-mismatch"),
            (422, said(Code::InvalidCommit), "refused invalid-commit"),
            (500, said(Code::Conflict), "busy unavailable"),
            (503, said(Code::StaleEpoch), "busy unavailable"),
            (500, said(Code::UnknownPeer), "busy unavailable"),
            (429, said(Code::NotAllowed), "busy unavailable"),
            (503, said(Code::QueueFull), "busy queue-full"),
            (500, said(Code::Internal), "busy internal"),
            (400, r#"{"code":"of-tomorrow","message":""}"#.to_owned(), "busy unavailable"),
        ] {
            assert_eq!(fate(status, &body), expected, "{status} {body}");
        }
    }

    #[test]
    fn a_peer_may_ask_for_a_wait_of_at_most_an_hour() {
        let asked = |body: &str, header| match succeeded(reply(503, body, header)) {
            Err(Failure::Retry(Why::Busy(_), wait)) => wait,
            other => panic!("{other:?}"),
        };
        assert_eq!(asked("", None), None);
        assert_eq!(asked("", Some("7")), Some(Duration::from_secs(7)));
        assert_eq!(asked("", Some("999999999")), Some(MAX_WAIT));
        assert_eq!(asked("", Some("Wed, 21 Oct 2015 07:28:00 GMT")), None);
        let body =
            serde_json::to_string(&Refusal::new(Code::QueueFull).retry_after_ms(1500).to_body())
                .unwrap();
        assert_eq!(asked(&body, Some("2")), Some(Duration::from_millis(1500)));
    }
}
