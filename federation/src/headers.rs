//! `From` and the `Fed-*` headers, strictly. PROTOCOL §9.5.
//!
//! Each is given at most once, in one spelling; anything else is [`Code::Malformed`].

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use protocol::log::Chain;
use protocol::{Code, DeviceId, Domain, Incarnation, Refusal, Seq, limit};

/// The life of the hub's database.
pub const INCARNATION: HeaderName = HeaderName::from_static("fed-incarnation");
/// The first entry's number and how many there are.
pub const SEQ: HeaderName = HeaderName::from_static("fed-seq");
/// The chain before the first entry.
pub const CHAIN: HeaderName = HeaderName::from_static("fed-chain");
/// What the entries do to the receiver's own devices.
pub const MEMBERS: HeaderName = HeaderName::from_static("fed-members");
/// The committer's signature over a handshake bundle.
pub const BUNDLE_SIG: HeaderName = HeaderName::from_static("fed-bundle-sig");
/// In a follower's answer to notify: the last entry it has.
pub const HEAD: HeaderName = HeaderName::from_static("fed-head");

/// What all headers of a request may have together: `Fed-Members` and 8 KiB more. Set it as HTTP/2's `max_header_list_size`.
pub const HEADER_LIST_BYTES: u32 = 64 * 1024;

fn malformed(name: &HeaderName, why: &str) -> Refusal {
    Refusal::because(Code::Malformed, format!("The header {name} {why}."))
}

/// The header's one value, `None` when it is not there.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed(name, "is given twice"));
    }
    value.to_str().map(Some).map_err(|_| malformed(name, "is not ASCII text"))
}

fn required<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, Refusal> {
    one(headers, name)?.ok_or_else(|| malformed(name, "is missing"))
}

/// Text made of our own types is always a header value; a device name with a line break cannot exist.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("ids, numbers and base64 are visible ASCII")
}

/// A number without sign, spaces or leading zeros.
fn number(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn bytes<const N: usize>(name: &HeaderName, text: &str) -> Result<[u8; N], Refusal> {
    let decoded = if text.len() <= 2 * N { B64.decode(text).ok() } else { None };
    decoded
        .and_then(|b| b.try_into().ok())
        .ok_or_else(|| malformed(name, &format!("is not {N} bytes in base64url")))
}

/// Writes `From: mimi@<domain>`.
pub fn write_from(headers: &mut HeaderMap, domain: &Domain) {
    headers.insert(header::FROM, value(&format!("mimi@{domain}")));
}

/// Reads `From: mimi@<domain>`.
///
/// # Errors
/// [`Code::DomainMismatch`] when it is missing, given twice or of another form.
pub fn read_from(headers: &HeaderMap) -> Result<Domain, Refusal> {
    let bad = |why: &str| {
        Refusal::because(
            Code::DomainMismatch,
            format!("The From header {why}; it must be mimi@<domain>."),
        )
    };
    let text = one(headers, &header::FROM).map_err(|_| bad("cannot be read"))?;
    let domain = text.ok_or_else(|| bad("is missing"))?.strip_prefix("mimi@");
    domain.and_then(|d| Domain::parse(d).ok()).ok_or_else(|| bad("has another form"))
}

/// Which entries a notify or a backfill answer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FanoutRange {
    /// The life of the hub's database.
    pub incarnation: Incarnation,
    /// The first entry's number, from 1.
    pub first: Seq,
    /// How many entries, up to [`limit::BATCH_ENTRIES`]; 0 only in a backfill answer that has nothing to give.
    pub n: u32,
    /// The chain before the first entry.
    pub prev_chain: Chain,
}

impl FanoutRange {
    /// The last entry's number; the one before the first when there is none.
    #[must_use]
    pub fn last(&self) -> Seq {
        Seq::new(self.first.get().saturating_add(u64::from(self.n))).prev()
    }

    /// Writes `Fed-Incarnation`, `Fed-Seq` and `Fed-Chain`.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(INCARNATION, value(&self.incarnation.to_string()));
        headers.insert(SEQ, value(&format!("first={}, n={}", self.first, self.n)));
        headers.insert(CHAIN, value(&B64.encode(self.prev_chain.as_bytes())));
    }

    /// Reads the three headers.
    ///
    /// # Errors
    /// [`Code::Malformed`] when one is missing or of another form; [`Code::TooLarge`] when it names too many entries.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        let incarnation = required(headers, &INCARNATION)?;
        // One spelling: `parse` would take upper case too.
        let incarnation = incarnation
            .parse::<Incarnation>()
            .ok()
            .filter(|i| i.to_string() == incarnation)
            .ok_or_else(|| malformed(&INCARNATION, "is not 32 hexadecimal digits"))?;
        let (first, n) = seq(required(headers, &SEQ)?)
            .ok_or_else(|| malformed(&SEQ, "is not first=<number>, n=<number>"))?;
        if n > limit::BATCH_ENTRIES as u64 {
            let detail = format!("At most {} entries may come at once.", limit::BATCH_ENTRIES);
            return Err(Refusal::because(Code::TooLarge, detail));
        }
        if first == 0 || first.checked_add(n).is_none() {
            return Err(malformed(&SEQ, "names numbers no log has"));
        }
        let n = u32::try_from(n).map_err(|_| malformed(&SEQ, "names too many entries"))?;
        let prev_chain = Chain::from_bytes(bytes(&CHAIN, required(headers, &CHAIN)?)?);
        Ok(Self { incarnation, first: Seq::new(first), n, prev_chain })
    }
}

fn seq(text: &str) -> Option<(u64, u64)> {
    let (first, n) = text.split_once(", ")?;
    Some((number(first.strip_prefix("first=")?)?, number(n.strip_prefix("n=")?)?))
}

/// What a device of the receiver became.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// It reads the room from this entry on.
    Joined,
    /// It reads the room up to and including this entry.
    Removed,
}

/// What one entry does to one device of the receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberEffect {
    /// What it became.
    pub change: MemberChange,
    /// Whose.
    pub device: DeviceId,
    /// Where: the first entry it reads, or the last.
    pub at: Seq,
}

/// What the entries of a batch do to the receiver's devices, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemberEffects(Vec<MemberEffect>);

impl MemberEffects {
    /// The effects as a header.
    ///
    /// # Errors
    /// [`Code::TooLarge`] when they are longer than [`limit::MEMBERS_HEADER_BYTES`]: take fewer entries.
    pub fn new(effects: Vec<MemberEffect>) -> Result<Self, Refusal> {
        let list = Self(effects);
        if list.text().len() > limit::MEMBERS_HEADER_BYTES {
            return Err(Refusal::because(Code::TooLarge, "Too many devices change in one batch."));
        }
        Ok(list)
    }

    /// The effects.
    #[must_use]
    pub fn list(&self) -> &[MemberEffect] {
        &self.0
    }

    fn text(&self) -> String {
        let one = |e: &MemberEffect| {
            let sign = match e.change {
                MemberChange::Joined => '+',
                MemberChange::Removed => '-',
            };
            format!("{sign}{}@{}", e.device, e.at)
        };
        self.0.iter().map(one).collect::<Vec<_>>().join(" ")
    }

    /// Writes `Fed-Members`; leaves it out when nothing changes.
    pub fn write(&self, headers: &mut HeaderMap) {
        if !self.0.is_empty() {
            headers.insert(MEMBERS, value(&self.text()));
        }
    }

    /// Reads `Fed-Members`. Only devices of `receiver` and numbers from 1 on may be named; a missing header changes nothing.
    ///
    /// # Errors
    /// [`Code::Malformed`] when it has another form, [`Code::TooLarge`] when it is too long, [`Code::DomainMismatch`] when it
    /// names somebody else's device.
    pub fn read(headers: &HeaderMap, receiver: &Domain) -> Result<Self, Refusal> {
        let Some(text) = one(headers, &MEMBERS)? else { return Ok(Self::default()) };
        if text.len() > limit::MEMBERS_HEADER_BYTES {
            return Err(Refusal::because(
                Code::TooLarge,
                format!("The header {MEMBERS} is too long."),
            ));
        }
        let effects = text.split(' ').map(|one| {
            let effect = effect(one).ok_or_else(|| {
                malformed(&MEMBERS, "is not a list of +<device>@<seq> and -<device>@<seq>")
            })?;
            if effect.device.domain() == receiver {
                Ok(effect)
            } else {
                let detail = format!("The header {MEMBERS} names a device of another node.");
                Err(Refusal::because(Code::DomainMismatch, detail))
            }
        });
        effects.collect::<Result<_, _>>().map(Self)
    }
}

fn effect(text: &str) -> Option<MemberEffect> {
    let (change, rest) = if let Some(rest) = text.strip_prefix('+') {
        (MemberChange::Joined, rest)
    } else {
        (MemberChange::Removed, text.strip_prefix('-')?)
    };
    let (device, at) = rest.rsplit_once('@')?;
    let at = number(at).filter(|n| *n > 0)?;
    Some(MemberEffect { change, device: DeviceId::parse(device).ok()?, at: Seq::new(at) })
}

/// The committer's signature over a handshake bundle. PROTOCOL §7.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleSignature([u8; 64]);

impl BundleSignature {
    /// Wraps an Ed25519 signature.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    /// The signature.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// Writes `Fed-Bundle-Sig`.
    pub fn write(&self, headers: &mut HeaderMap) {
        headers.insert(BUNDLE_SIG, value(&B64.encode(self.0)));
    }

    /// Reads `Fed-Bundle-Sig`, which every update between our nodes carries.
    ///
    /// # Errors
    /// [`Code::Malformed`] when it is missing or not 64 bytes in base64url.
    pub fn read(headers: &HeaderMap) -> Result<Self, Refusal> {
        bytes(&BUNDLE_SIG, required(headers, &BUNDLE_SIG)?).map(Self)
    }
}

/// Writes `Fed-Head`, the last entry a follower has, into its answer to notify.
pub fn write_head(headers: &mut HeaderMap, head: Seq) {
    headers.insert(HEAD, value(&head.to_string()));
}

/// Reads `Fed-Head`; `None` when the other side does not say.
///
/// # Errors
/// [`Code::Malformed`] when it is not a number.
pub fn read_head(headers: &HeaderMap) -> Result<Option<Seq>, Refusal> {
    let Some(text) = one(headers, &HEAD)? else { return Ok(None) };
    number(text).map(|n| Some(Seq::new(n))).ok_or_else(|| malformed(&HEAD, "is not a number"))
}
