//! Who may say what: callers, headers, pairing requests.

use std::time::Duration;

use federation::headers::{
    self, BundleSignature, FanoutRange, MemberChange, MemberEffect, MemberEffects,
};
use federation::pairing::{self, Offer, PairAnswer, PairRequest, Paired};
use federation::verify::Claim;
use federation::{PeerCertificate, Reach};
use http::{HeaderMap, HeaderName};
use protocol::invite::{Line, LineKind};
use protocol::log::Chain;
use protocol::{Code, DeviceId, Domain, Incarnation, Seq, limit};

use crate::support::{DAY, NOW, domain};

fn certificate(name: &str, key: u8) -> PeerCertificate {
    PeerCertificate { domain: domain(name), node_key: [key; 32], not_after: NOW.after(DAY) }
}

fn from(text: &[&str]) -> HeaderMap {
    let values = text.iter().map(|t| (http::header::FROM, t.parse().unwrap()));
    values.collect()
}

#[test]
fn a_caller_is_who_its_certificate_its_header_and_its_row_say() {
    let b = || certificate("b.example", 2);
    let good = from(&["mimi@b.example"]);
    let pin = [2; 32];
    let fate = |certificate: Option<&PeerCertificate>,
                headers: &HeaderMap,
                pin: Option<&[u8; 32]>,
                now| {
        let claim = Claim::of(certificate, headers, now)?;
        claim.confirm(pin)
    };
    let code =
        |certificate: Option<PeerCertificate>, headers: &HeaderMap, pin: Option<[u8; 32]>, now| {
            fate(certificate.as_ref(), headers, pin.as_ref(), now)
                .map(|c| c.domain().to_string())
                .map_err(|r| r.code)
        };
    assert_eq!(code(Some(b()), &good, Some(pin), NOW), Ok("b.example".into()));
    assert_eq!(code(None, &good, Some(pin), NOW), Err(Code::PeerCertificate));
    assert_eq!(code(Some(b()), &good, None, NOW), Err(Code::UnknownPeer));
    assert_eq!(code(Some(b()), &good, Some([3; 32]), NOW), Err(Code::PeerCertificate), "re-pinned");
    assert_eq!(code(Some(b()), &good, Some(pin), NOW.after(DAY)), Ok("b.example".into()));
    let later = NOW.after(DAY).after(Duration::from_millis(1));
    assert_eq!(
        code(Some(b()), &good, Some(pin), later),
        Err(Code::PeerCertificate),
        "expired on a long connection"
    );
    for bad in [
        &[][..],
        &["mimi@c.example"],
        &["mimi@b.example", "mimi@b.example"],
        &["mimi@b.example", "mimi@c.example"],
        &["b.example"],
        &["ana@b.example"],
        &["MIMI@b.example"],
        &["mimi@B.example"],
        &["mimi@b.example."],
        &["mimi@b.example "],
        &["<mimi@b.example>"],
        &["mimi@b.example, mimi@c.example"],
        &["mimi@"],
        &[""],
    ] {
        assert_eq!(
            code(Some(b()), &from(bad), Some(pin), NOW),
            Err(Code::DomainMismatch),
            "{bad:?}"
        );
    }
}

#[test]
fn a_body_speaks_for_its_caller_only() {
    let caller = || {
        let claim =
            Claim::of(Some(&certificate("b.example", 2)), &from(&["mimi@b.example"]), NOW).unwrap();
        claim.confirm(Some(&[2; 32])).unwrap()
    };
    let (b, c) = (domain("b.example"), domain("c.example"));
    let verified = caller().vouch("body", [&b, &b]).unwrap();
    assert_eq!((verified.caller().domain(), *verified.body()), (&b, "body"));
    for senders in [vec![&c], vec![&b, &c], vec![&c, &b]] {
        assert_eq!(caller().vouch((), senders).unwrap_err().code, Code::DomainMismatch);
    }
}

fn with(name: &HeaderName, values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    range().write(&mut headers);
    BundleSignature::from_bytes([1; 64]).write(&mut headers);
    headers.remove(name);
    for value in values {
        headers.append(name, value.parse().unwrap());
    }
    headers
}

fn range() -> FanoutRange {
    FanoutRange {
        incarnation: Incarnation::from_bytes([0xab; 16]),
        first: Seq::new(41),
        n: 2,
        prev_chain: Chain::from_bytes([0xcd; 32]),
    }
}

#[test]
fn a_range_has_one_spelling() {
    let mut written = HeaderMap::new();
    range().write(&mut written);
    assert_eq!(written["fed-incarnation"], "abababababababababababababababab");
    assert_eq!(written["fed-seq"], "first=41, n=2");
    assert_eq!(written["fed-chain"], "zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0");
    assert_eq!(FanoutRange::read(&written).unwrap(), range());
    assert_eq!(range().last(), Seq::new(42));
    for (text, expected) in [
        ("first=1, n=0", Ok((1, 0, 0))),
        ("first=1, n=64", Ok((1, 64, 64))),
        ("first=18446744073709551615, n=0", Ok((u64::MAX, 0, u64::MAX - 1))),
        ("first=1, n=65", Err(Code::TooLarge)),
        ("first=1, n=18446744073709551615", Err(Code::TooLarge)),
        ("first=0, n=1", Err(Code::Malformed)),
        ("first=18446744073709551615, n=2", Err(Code::Malformed)),
        ("first=18446744073709551616, n=1", Err(Code::Malformed)),
        ("first=01, n=1", Err(Code::Malformed)),
        ("first=+1, n=1", Err(Code::Malformed)),
        ("first=1,n=1", Err(Code::Malformed)),
        ("first=1, n=1 ", Err(Code::Malformed)),
        ("n=1, first=1", Err(Code::Malformed)),
        ("first=1, n=", Err(Code::Malformed)),
        ("first=1", Err(Code::Malformed)),
        ("", Err(Code::Malformed)),
    ] {
        let got = FanoutRange::read(&with(&headers::SEQ, &[text]));
        let got = got.map(|r| (r.first.get(), r.n, r.last().get())).map_err(|r| r.code);
        assert_eq!(got, expected, "{text}");
    }
}

#[test]
fn headers_that_are_missing_doubled_or_bent_are_refused() {
    let lower = "ab".repeat(16);
    for (name, values) in [
        (headers::INCARNATION, vec![]),
        (headers::INCARNATION, vec!["ab"]),
        (headers::INCARNATION, vec![lower.as_str(), lower.as_str()]),
        (headers::INCARNATION, vec!["ABABABABABABABABABABABABABABABAB"]),
        (headers::INCARNATION, vec!["+b+b+b+b+b+b+b+b+b+b+b+b+b+b+b+b"]),
        (headers::SEQ, vec![]),
        (headers::SEQ, vec!["first=1, n=1", "first=1, n=1"]),
        (headers::CHAIN, vec![]),
        (headers::CHAIN, vec!["AAAA"]),
        (headers::CHAIN, vec!["zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc0="]),
        // The last character has bits that belong to no byte.
        (headers::CHAIN, vec!["zc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc1"]),
    ] {
        let got = FanoutRange::read(&with(&name, &values));
        assert_eq!(got.unwrap_err().code, Code::Malformed, "{name} {values:?}");
    }
    for values in [vec![], vec!["AAAA"], vec!["!"], vec![" "]] {
        let got = BundleSignature::read(&with(&headers::BUNDLE_SIG, &values));
        assert_eq!(got.unwrap_err().code, Code::Malformed, "{values:?}");
    }
    assert_eq!(BundleSignature::read(&with(&headers::SEQ, &[])).unwrap().as_bytes(), &[1; 64]);
    let mut headers = HeaderMap::new();
    assert_eq!(headers::read_head(&headers).unwrap(), None);
    headers::write_head(&mut headers, Seq::new(0));
    assert_eq!(headers::read_head(&headers).unwrap(), Some(Seq::new(0)));
    assert!(headers::read_head(&with(&headers::HEAD, &["-1"])).is_err());
}

#[test]
fn membership_effects_name_devices_of_the_receiver_only() {
    let b = domain("b.example");
    let device = |n: &str| DeviceId::parse(&format!("mimi://b.example/d/{n}/1")).unwrap();
    let effect = |change, n: &str, at| MemberEffect { change, device: device(n), at: Seq::new(at) };
    let list = vec![effect(MemberChange::Joined, "bo", 7), effect(MemberChange::Removed, "cy", 9)];
    let effects = MemberEffects::new(list.clone()).unwrap();
    let mut written = HeaderMap::new();
    effects.write(&mut written);
    assert_eq!(written["fed-members"], "+mimi://b.example/d/bo/1@7 -mimi://b.example/d/cy/1@9");
    assert_eq!(MemberEffects::read(&written, &b).unwrap().list(), list);
    assert_eq!(MemberEffects::read(&HeaderMap::new(), &b).unwrap().list(), []);
    let mut none = HeaderMap::new();
    MemberEffects::default().write(&mut none);
    assert!(none.is_empty());
    let read = |text: &str, who: &Domain| {
        MemberEffects::read(&with(&headers::MEMBERS, &[text]), who).map_err(|r| r.code)
    };
    assert_eq!(read("+mimi://b.example/d/bo/1@7", &domain("a.example")), Err(Code::DomainMismatch));
    for bad in [
        "",
        " ",
        "mimi://b.example/d/bo/1@7",
        "+mimi://b.example/d/bo/1",
        "+mimi://b.example/d/bo/1@",
        "+mimi://b.example/d/bo/1@0",
        "+mimi://b.example/d/bo/1@07",
        "+mimi://b.example/d/bo/1@-7",
        "+mimi://b.example/u/bo@7",
        "+mimi://b.example/d/bo/1@7  +mimi://b.example/d/bo/2@7",
        "+mimi://b.example/d/bo/1@7,+mimi://b.example/d/bo/2@7",
    ] {
        assert_eq!(read(bad, &b), Err(Code::Malformed), "{bad}");
    }
    // A commit that adds as many devices as one may, with names of the usual length, fits.
    let many = |n: u64| {
        (0..n)
            .map(|i| effect(MemberChange::Joined, &format!("somebody.with.a.name-{i}"), i + 1))
            .collect()
    };
    assert!(MemberEffects::new(many(256)).is_ok());
    assert_eq!(MemberEffects::new(many(2000)).unwrap_err().code, Code::TooLarge);
    let long = "x".repeat(limit::MEMBERS_HEADER_BYTES + 1);
    assert_eq!(read(&long, &b), Err(Code::TooLarge));
}

fn line() -> Line {
    Line {
        kind: LineKind::Peer,
        domain: domain("a.example"),
        host: "a.example".into(),
        port: 443,
        node_key: [1; 32],
        secret: [9; 32],
    }
}

fn claim(name: &str, key: u8) -> Claim {
    Claim::of(Some(&certificate(name, key)), &from(&[&format!("mimi@{name}")]), NOW).unwrap()
}

#[test]
fn a_line_pairs_one_node_under_one_key() {
    let a = domain("a.example");
    let request = PairRequest::new(&line(), &domain("b.example"), "10.0.0.7", 8443).unwrap();
    let request = PairRequest::decode(&request.encode()).unwrap();
    let fresh = Offer { expires: NOW, used_by: None };
    let used = |name: &str| Offer { used_by: Some(domain(name)), ..fresh.clone() };
    let code = |claim: &Claim, offer: Option<&Offer>, pinned: Option<[u8; 32]>, now| {
        pairing::accept(&a, claim, &request, offer, pinned.as_ref(), now).map_err(|r| r.code)
    };
    let b = claim("b.example", 2);
    match code(&b, Some(&fresh), None, NOW) {
        Ok(Paired::New(peer)) => {
            assert_eq!(
                (peer.domain.as_str(), peer.node_key, peer.port),
                ("b.example", [2; 32], 8443)
            );
            assert_eq!(
                peer.reach,
                Reach::Public,
                "whoever names an address of ours does not get us to dial it"
            );
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(code(&b, Some(&fresh), Some([2; 32]), NOW), Ok(Paired::New(_))),
        "a new address"
    );
    assert_eq!(code(&b, Some(&used("b.example")), Some([2; 32]), NOW), Ok(Paired::Again));
    let later = NOW.after(DAY);
    assert_eq!(
        code(&b, Some(&used("b.example")), Some([2; 32]), later),
        Ok(Paired::Again),
        "the answer was lost"
    );
    assert_eq!(code(&b, None, None, NOW), Err(Code::BadInvite));
    assert_eq!(code(&b, Some(&fresh), None, later), Err(Code::BadInvite), "expired");
    assert_eq!(code(&b, Some(&used("c.example")), None, NOW), Err(Code::BadInvite));
    assert_eq!(code(&b, Some(&used("b.example")), Some([3; 32]), NOW), Err(Code::BadInvite));
    assert_eq!(
        code(&b, Some(&used("b.example")), None, NOW),
        Err(Code::BadInvite),
        "removed since: a new line is needed"
    );
    assert_eq!(
        code(&b, Some(&fresh), Some([3; 32]), NOW),
        Err(Code::Conflict),
        "nobody takes over a peer with a line"
    );
    assert_eq!(code(&claim("c.example", 2), Some(&fresh), None, NOW), Err(Code::DomainMismatch));
    let ourselves = PairRequest::new(&line(), &a, "a.example", 443).unwrap();
    let refused = pairing::accept(&a, &claim("a.example", 1), &ourselves, Some(&fresh), None, NOW);
    assert_eq!(refused.unwrap_err().code, Code::DomainMismatch);
}

#[test]
fn the_answer_to_a_pairing_proves_the_secret_and_everything_agreed_on() {
    let a = domain("a.example");
    let request = PairRequest::new(&line(), &domain("b.example"), "b.example", 8443).unwrap();
    let answer = PairAnswer::new(&a, &[1; 32], &claim("b.example", 2), &request).unwrap();
    let answer = PairAnswer::decode(&answer.encode()).unwrap();
    assert_eq!(answer.check(&line(), &[2; 32], &request), Ok(()));
    let moved = PairRequest::new(&line(), &domain("b.example"), "b.example", 8444).unwrap();
    for (line, key, request) in [
        (line(), [3; 32], &request),
        (Line { secret: [8; 32], ..line() }, [2; 32], &request),
        (Line { node_key: [7; 32], ..line() }, [2; 32], &request),
        (Line { domain: domain("c.example"), ..line() }, [2; 32], &request),
        (line(), [2; 32], &moved),
    ] {
        assert_eq!(answer.check(&line, &key, request).unwrap_err().code, Code::BadInvite);
    }
    assert!(!format!("{request:?}").contains("CQkJ"), "the secret stays out of debug output");
}

#[test]
fn pairing_messages_that_are_none_are_refused() {
    let secret = "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk";
    let body = |domain: &str, host: &str, port: &str, secret: &str| {
        format!(r#"{{"domain":"{domain}","host":"{host}","port":{port},"secret":"{secret}"}}"#)
    };
    let code = |text: String| PairRequest::decode(text.as_bytes()).map(drop).map_err(|r| r.code);
    assert_eq!(code(body("b.example", "b.example", "8443", secret)), Ok(()));
    assert_eq!(code(body("b.example", "[::1]", "8443", secret)), Ok(()));
    for (text, expected) in [
        (body("B.example", "b.example", "8443", secret), Code::Malformed),
        (body("b.example", "b.example", "0", secret), Code::Invalid),
        (body("b.example", "b.example", "65536", secret), Code::Malformed),
        (body("b.example", "", "1", secret), Code::Invalid),
        (body("b.example", "a@b", "1", secret), Code::Invalid),
        (body("b.example", "b/c", "1", secret), Code::Invalid),
        (body("b.example", "b c", "1", secret), Code::Invalid),
        (body("b.example", &"x".repeat(256), "1", secret), Code::Invalid),
        (body("b.example", "b.example", "1", "CQkJ"), Code::Malformed),
        (body("b.example", "b.example", "1", &"C".repeat(3000)), Code::Malformed),
        (body("b.example", &"x".repeat(5000), "1", secret), Code::TooLarge),
        (body("b.example", "b", "1", secret).replace("port", "ports"), Code::Malformed),
        (body("b.example", "b", "1", secret).replace('}', r#","x":1}"#), Code::Malformed),
        ("[".repeat(4000), Code::Malformed),
        (String::new(), Code::Malformed),
    ] {
        assert_eq!(code(text.clone()), Err(expected), "{text}");
    }
}
