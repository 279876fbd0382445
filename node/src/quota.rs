//! Rate limits: who may ask how often. A token bucket each, refused with the time to wait.

use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use protocol::{Code, DeviceId, Domain, Refusal, UserId};

use crate::config::Limits;

/// All rate limits of a node.
pub(crate) struct Quotas {
    sign_ins: Bucket<IpAddr>,
    submits: Bucket<DeviceId>,
    requests: Bucket<DeviceId>,
    claims: Bucket<UserId>,
    peer_claims: Bucket<(Domain, UserId)>,
    peers: Bucket<Domain>,
}

impl Quotas {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            sign_ins: Bucket::new(Duration::from_mins(1), limits.sign_ins_per_minute),
            submits: Bucket::new(SECOND, limits.submits_per_second),
            requests: Bucket::new(SECOND, limits.submits_per_second),
            claims: Bucket::new(Duration::from_mins(1), limits.claims_per_minute),
            peer_claims: Bucket::new(Duration::from_mins(1), limits.claims_per_minute),
            peers: Bucket::new(SECOND, limits.peer_requests_per_second),
        }
    }

    /// A registration, login or linking attempt from an address.
    pub(crate) fn sign_in(&self, from: IpAddr) -> Result<(), Refusal> {
        // One home or one attacker holds a whole /64.
        let from = match from.to_canonical() {
            IpAddr::V6(v6) => IpAddr::from((u128::from(v6) & !u128::from(u64::MAX)).to_be_bytes()),
            v4 @ IpAddr::V4(_) => v4,
        };
        self.sign_ins.take(&from)
    }

    /// A submission of a device.
    pub(crate) fn submit(&self, by: &DeviceId) -> Result<(), Refusal> {
        self.submits.take(by)
    }

    /// Any other request of a device.
    pub(crate) fn request(&self, by: &DeviceId) -> Result<(), Refusal> {
        self.requests.take(by)
    }

    /// A claim of key material or group info by a user whose node is known to speak for it: one of ours on its own connection, or a
    /// peer's on that peer's.
    pub(crate) fn claim(&self, by: &UserId) -> Result<(), Refusal> {
        self.claims.take(by)
    }

    /// A claim of `target`'s key material that a peer brings: it uses up one-time KeyPackages, whoever it says it asks for.
    pub(crate) fn claim_of_peer(&self, peer: &Domain, target: &UserId) -> Result<(), Refusal> {
        self.peer_claims.take(&(peer.clone(), target.clone()))
    }

    /// A request of a peer.
    pub(crate) fn peer(&self, by: &Domain) -> Result<(), Refusal> {
        self.peers.take(by)
    }

    /// Forgets those who have been quiet. Called by the expiry worker, so that memory follows the present load.
    pub(crate) fn forget_idle(&self) {
        self.sign_ins.0.retain_recent();
        self.submits.0.retain_recent();
        self.requests.0.retain_recent();
        self.claims.0.retain_recent();
        self.peer_claims.0.retain_recent();
        self.peers.0.retain_recent();
    }
}

struct Bucket<K: Hash + Eq + Clone>(RateLimiter<K, HashMapStateStore<K>, DefaultClock>);

impl<K: Hash + Eq + Clone> Bucket<K> {
    /// `count` per `period`, and a burst of twice that.
    fn new(period: Duration, count: u32) -> Self {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period / count.get()).unwrap_or(Quota::per_second(count));
        let burst = count.saturating_add(count.get());
        Self(RateLimiter::hashmap(quota.allow_burst(burst)))
    }

    fn take(&self, key: &K) -> Result<(), Refusal> {
        if self.0.len() > KEYS_MAX {
            self.0.retain_recent();
        }
        self.0.check_key(key).map_err(|not_until| {
            let wait = not_until.wait_time_from(DefaultClock::default().now()).as_millis();
            let wait = u32::try_from(wait).unwrap_or(u32::MAX).max(1);
            Refusal::new(Code::RateLimited).retry_after_ms(wait)
        })
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// More callers than this at once make the bucket look for idle ones first.
const KEYS_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flooder_is_told_when_to_come_back_and_others_are_not_touched() {
        let quotas = Quotas::new(&Limits { sign_ins_per_minute: 2, ..Limits::default() });
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let refused = (0..10).find_map(|_| quotas.sign_in(a).err()).unwrap();
        assert_eq!(refused.code, Code::RateLimited);
        assert!(refused.retry_after_ms.is_some_and(|ms| ms > 0 && ms <= 30_000));
        assert!(quotas.sign_in(b).is_ok());
    }

    #[test]
    fn a_peer_uses_up_neither_our_peoples_claims_nor_other_targets() {
        let quotas = Quotas::new(&Limits { claims_per_minute: 1, ..Limits::default() });
        let peer: Domain = "b.example".parse().unwrap();
        let user = |name: &str| format!("mimi://a.example/u/{name}").parse::<UserId>().unwrap();
        assert!((0..10).any(|_| quotas.claim_of_peer(&peer, &user("ann")).is_err()));
        assert!(quotas.claim_of_peer(&peer, &user("bob")).is_ok());
        assert!(quotas.claim(&user("ann")).is_ok());
    }

    #[test]
    fn one_v6_network_is_one_caller() {
        let quotas = Quotas::new(&Limits { sign_ins_per_minute: 1, ..Limits::default() });
        let from = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        assert!((0..10).any(|n| quotas.sign_in(from(n)).is_err()));
    }
}
