//! How often somebody may call. Kept in memory by each replica: a limit protects it, and is no account.
//!
//! Sharded like the devices' records, because every call passes here: no lock is shared by all, and a caller who is known
//! costs no memory. How much memory the callers take together is bounded, whoever they are.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hash, RandomState},
    net::IpAddr,
    str::FromStr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::app::{Error, Result};

const SHARDS: usize = 64;
/// Most callers remembered in a shard. Some 40 bytes each: a million of them take 40 MB.
const SHARD_CAPACITY: usize = 16_384;

/// So many calls at once, and as many again in each span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many. At least 1.
    calls: u32,
    /// In which time.
    per: Duration,
}

/// The text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be calls/time, such as 5/1m or 1000/10s: so many at once, and as many again in each such time")]
pub struct ParseRateError;

impl Rate {
    /// The time after which one more call is free.
    fn every(self) -> Duration {
        self.per / self.calls
    }
}

impl FromStr for Rate {
    type Err = ParseRateError;

    fn from_str(text: &str) -> std::result::Result<Self, ParseRateError> {
        let (calls, per) = text.split_once('/').ok_or(ParseRateError)?;
        let calls = calls.parse().ok().filter(|&calls| calls > 0).ok_or(ParseRateError)?;
        let per = humantime::parse_duration(per).map_err(|_| ParseRateError)?;
        let rate = Self { calls, per };
        let sane = (Duration::from_nanos(1)..=Duration::from_secs(24 * 3600)).contains(&rate.every())
            && per <= Duration::from_secs(24 * 3600);
        if sane { Ok(rate) } else { Err(ParseRateError) }
    }
}

/// Something remembered of each caller, for as long as it matters.
#[derive(Debug)]
struct Memory<K, V> {
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<K, V>>]>,
}

impl<K: Copy + Eq + Hash, V> Memory<K, V> {
    fn new() -> Self {
        Self { hasher: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    fn shard(&self, key: K) -> MutexGuard<'_, HashMap<K, V>> {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // No code between lock and unlock can leave a shard half changed.
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes room for one more, first by what does not matter any more. When all of it matters, a flood of callers passes
/// here: then it is forgotten, which costs less than to remember any number of them.
fn make_room<K: Eq + Hash, V>(shard: &mut HashMap<K, V>, matters: impl Fn(&V) -> bool) {
    if shard.len() >= SHARD_CAPACITY {
        shard.retain(|_, value| matters(value));
        if shard.len() > SHARD_CAPACITY / 2 {
            shard.clear();
        }
    }
}

/// Counts calls against a rate: the generic cell rate algorithm (ITU-T I.371), which needs one point in time a caller.
#[derive(Debug)]
pub struct Meter<K> {
    rate: Rate,
    /// When all the calls that were taken would have been free.
    due: Memory<K, Instant>,
}

impl<K: Copy + Eq + Hash> Meter<K> {
    /// Nobody has called yet.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self { rate, due: Memory::new() }
    }

    /// Takes one call of this caller at `now`.
    ///
    /// # Errors
    /// How long the caller has to wait, when it is one too many.
    pub fn take(&self, key: K, now: Instant) -> std::result::Result<(), Duration> {
        let every = self.rate.every();
        let ahead_at_most = every * (self.rate.calls - 1);
        let mut shard = self.due.shard(key);
        if let Some(due) = shard.get_mut(&key) {
            let ahead = due.saturating_duration_since(now);
            if ahead > ahead_at_most {
                return Err(ahead - ahead_at_most);
            }
            *due = now + ahead + every;
            return Ok(());
        }
        make_room(&mut shard, |due| *due > now);
        shard.insert(key, now + every);
        Ok(())
    }

    /// Whether calls of this caller were taken that are still remembered.
    #[must_use]
    pub fn knows(&self, key: K) -> bool {
        self.due.shard(key).contains_key(&key)
    }
}

/// Failures that cost nothing: people mistype, tokens end.
const FREE_FAILURES: u32 = 10;
/// The wait after the first failure too many. Each further one doubles it, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(64);
/// After this time without a failure all of them are forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_secs(600);

/// How often an address showed credentials that are none.
#[derive(Debug)]
struct Failures(Memory<Network, Strikes>);

#[derive(Debug, Clone, Copy)]
struct Strikes {
    count: u32,
    last: Instant,
}

impl Strikes {
    /// How long its address has to wait at `now` before it may try again.
    fn wait(self, now: Instant) -> Option<Duration> {
        let over = self.count.checked_sub(FREE_FAILURES + 1)?;
        let wait = FIRST_WAIT.saturating_mul(1 << over.min(16)).min(LONGEST_WAIT);
        let passed = now.saturating_duration_since(self.last);
        wait.checked_sub(passed).filter(|wait| !wait.is_zero())
    }

    fn matters(self, now: Instant) -> bool {
        now.saturating_duration_since(self.last) < FORGIVEN_AFTER
    }
}

impl Failures {
    fn wait(&self, address: Network, now: Instant) -> Option<Duration> {
        self.0.shard(address).get(&address).and_then(|strikes| strikes.wait(now))
    }

    fn note(&self, address: Network, now: Instant) {
        let mut shard = self.0.shard(address);
        if let Some(strikes) = shard.get_mut(&address) {
            let count = if strikes.matters(now) { strikes.count.saturating_add(1) } else { 1 };
            *strikes = Strikes { count, last: now };
            return;
        }
        make_room(&mut shard, |strikes| strikes.matters(now));
        shard.insert(address, Strikes { count: 1, last: now });
    }
}

/// What an address is limited by: itself, or for IPv6 the block of 2⁶⁴ that one customer has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(u64);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(u64::from(address.to_bits())),
            // Global addresses begin with a bit that no 32-bit number has here.
            IpAddr::V6(address) => Self(u64::try_from(address.to_bits() >> 64).unwrap_or(u64::MAX)),
        }
    }
}

/// Who calls, as far as limits are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity(pub u128);

/// All limits of a replica.
#[derive(Debug)]
pub struct Limits {
    calls: Meter<Identity>,
    anonymous: Meter<Network>,
    enrollments: Meter<Network>,
    device_failures: Failures,
    operator_failures: Failures,
}

/// Calls without a credential from one address: health checks, challenges, new sessions of all devices behind one proxy.
const ANONYMOUS: Rate = Rate { calls: 2_000, per: Duration::from_secs(10) };

/// Whose credential was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// A device's.
    Device,
    /// An operator's.
    Operator,
}

impl Limits {
    /// Limits the calls of each caller who is known, and the enrolments of each address.
    #[must_use]
    pub fn new(calls: Rate, enrollments: Rate) -> Self {
        Self {
            calls: Meter::new(calls),
            anonymous: Meter::new(ANONYMOUS),
            enrollments: Meter::new(enrollments),
            device_failures: Failures(Memory::new()),
            operator_failures: Failures(Memory::new()),
        }
    }

    /// Takes a call of somebody who proved who they are.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn call(&self, caller: Identity, now: Instant) -> Result<()> {
        self.calls.take(caller, now).map_err(limited)
    }

    /// Takes a call that needs no credential.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn anonymous(&self, source: IpAddr, now: Instant) -> Result<()> {
        self.anonymous.take(source.into(), now).map_err(limited)
    }

    /// Takes an enrolment.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn enrollment(&self, source: IpAddr, now: Instant) -> Result<()> {
        self.enrollments.take(source.into(), now).map_err(limited)
    }

    /// Makes sure that somebody may try an operator's credential that the database has to be asked about. Who has proved it
    /// here before is not kept waiting by the failures of a neighbour.
    ///
    /// # Errors
    /// `RATE_LIMITED` while the address has to wait.
    pub fn may_try(&self, source: IpAddr, claimed: Identity, now: Instant) -> Result<()> {
        match self.operator_failures.wait(source.into(), now) {
            Some(wait) if !self.calls.knows(claimed) => Err(limited(wait)),
            Some(_) | None => Ok(()),
        }
    }

    /// Notes that a credential was refused. Says what to answer: that, or to wait when it happened too often. A device's
    /// credential costs little to check and is checked in any case, so that one that was sent away keeps none of its
    /// neighbours waiting.
    pub fn refused(&self, source: IpAddr, claimed: Claimed, now: Instant, refusal: Error) -> Error {
        let failures = match claimed {
            Claimed::Device => &self.device_failures,
            Claimed::Operator => &self.operator_failures,
        };
        match failures.wait(source.into(), now) {
            Some(wait) => limited(wait),
            None => {
                failures.note(source.into(), now);
                refusal
            }
        }
    }
}

fn limited(retry_after: Duration) -> Error {
    Error::RateLimited { retry_after }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tonic_types::StatusExt as _;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn limits() -> Limits {
        Limits::new(rate("3/3s"), rate("2/1m"))
    }

    fn waits(result: Result<()>) -> Option<Duration> {
        match result {
            Ok(()) => None,
            Err(Error::RateLimited { retry_after }) => Some(retry_after),
            Err(error) => panic!("{error}"),
        }
    }

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_rate_is_so_many_at_once_and_as_many_again_in_each_time() {
        let (limits, start) = (limits(), Instant::now());
        let second = Duration::from_secs(1);
        for _ in 0..3 {
            assert_eq!(waits(limits.call(Identity(1), start)), None);
        }
        assert_eq!(waits(limits.call(Identity(1), start)), Some(second));
        assert_eq!(waits(limits.call(Identity(2), start)), None);
        assert_eq!(waits(limits.call(Identity(1), start + second)), None);
        assert_eq!(waits(limits.call(Identity(1), start + second)), Some(second));
        for _ in 0..3 {
            assert_eq!(waits(limits.call(Identity(1), start + 60 * second)), None);
        }
        assert_eq!(waits(limits.call(Identity(1), start + 60 * second)), Some(second));
    }

    #[test]
    fn a_rate_has_one_spelling() {
        for (good, every) in [("5/1m", Duration::from_secs(12)), ("1000/10s", Duration::from_millis(10))] {
            assert_eq!(rate(good).every(), every);
        }
        for bad in ["", "5", "/1m", "5/", "0/1m", "-1/1m", "5/0s", "5/x", "1/2d", "4000000000/1ns", "5/1m/1m"] {
            assert_eq!(bad.parse::<Rate>(), Err(ParseRateError), "{bad}");
        }
    }

    #[test]
    fn addresses_of_one_block_count_as_one() {
        let (limits, now) = (limits(), Instant::now());
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(waits(limits.enrollment(address("2001:db8::1"), now)), None);
        assert_eq!(waits(limits.enrollment(address("2001:db8::2:3"), now)), None);
        assert!(waits(limits.enrollment(address("2001:db8::ffff"), now)).is_some());
        assert_eq!(waits(limits.enrollment(address("2001:db8:0:1::1"), now)), None);
        for _ in 0..2 {
            assert_eq!(waits(limits.enrollment(address("192.0.2.1"), now)), None);
        }
        assert!(waits(limits.enrollment(address("::ffff:192.0.2.1"), now)).is_some());
        assert_eq!(waits(limits.enrollment(address("192.0.2.2"), now)), None);
    }

    #[test]
    fn failures_of_an_address_make_it_wait_ever_longer_and_are_forgiven() {
        let (limits, mut now) = (limits(), Instant::now());
        let refuse = |now| limits.refused(ADDRESS, Claimed::Operator, now, Error::Invalid(vec![]));
        for _ in 0..=FREE_FAILURES {
            assert!(matches!(refuse(now), Error::Invalid(_)));
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            let wait = Duration::from_secs(seconds);
            assert_eq!(waits(limits.may_try(ADDRESS, Identity(1), now)), Some(wait));
            // Whoever does not wait is not told whether it would have been right, and does not make it worse.
            assert_eq!(waits(Err(refuse(now))), Some(wait));
            now += wait;
            assert_eq!(waits(limits.may_try(ADDRESS, Identity(1), now)), None);
            assert!(matches!(refuse(now), Error::Invalid(_)));
        }
        now += FORGIVEN_AFTER;
        for _ in 0..=FREE_FAILURES {
            assert_eq!(waits(limits.may_try(ADDRESS, Identity(1), now)), None);
            assert!(matches!(refuse(now), Error::Invalid(_)));
        }
        assert!(waits(limits.may_try(ADDRESS, Identity(1), now)).is_some());
    }

    #[test]
    fn every_limit_says_when_to_come_back_and_means_it() {
        let (limits, now) = (limits(), Instant::now());
        let proven = |now| limits.call(Identity(1), now);
        let anonymous = |now| limits.anonymous(ADDRESS, now);
        let enrolling = |now| limits.enrollment(ADDRESS, now);
        let trying = |now| {
            limits.refused(ADDRESS, Claimed::Operator, now, Error::Invalid(vec![]));
            limits.may_try(ADDRESS, Identity(2), now)
        };
        let refused = |now| {
            let told = limits.refused(ADDRESS, Claimed::Device, now, Error::Invalid(vec![]));
            if matches!(told, Error::Invalid(_)) { Ok(()) } else { Err(told) }
        };
        let all: [&dyn Fn(Instant) -> Result<()>; 5] = [&proven, &anonymous, &enrolling, &trying, &refused];
        for limit in all {
            let over = (0..10_000).find_map(|_| limit(now).err()).unwrap();
            let status = tonic::Status::from(over);
            let told = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
            assert!(status.code() == tonic::Code::ResourceExhausted && !told.is_zero(), "{status:?}");
        }
        // The wait is not in vain.
        for limit in [&proven as &dyn Fn(Instant) -> Result<()>, &anonymous, &enrolling] {
            let wait = waits(limit(now)).unwrap();
            assert_eq!(waits(limit(now + wait)), None);
        }
    }

    #[test]
    fn who_proved_themselves_does_not_wait_for_a_neighbours_failures() {
        let (limits, now) = (limits(), Instant::now());
        limits.call(Identity(7), now).unwrap();
        for _ in 0..=FREE_FAILURES {
            limits.refused(ADDRESS, Claimed::Operator, now, Error::Invalid(vec![]));
        }
        assert!(waits(limits.may_try(ADDRESS, Identity(1), now)).is_some());
        assert_eq!(waits(limits.may_try(ADDRESS, Identity(7), now)), None);
        assert_eq!(waits(limits.may_try([192, 0, 2, 2].into(), Identity(1), now)), None);
        for _ in 0..100 {
            limits.refused([192, 0, 2, 9].into(), Claimed::Device, now, Error::Invalid(vec![]));
        }
        assert_eq!(waits(limits.may_try([192, 0, 2, 9].into(), Identity(1), now)), None);
    }

    #[test]
    fn any_number_of_callers_takes_no_more_than_so_much_memory() {
        let meter = Meter::new(rate("1/1h"));
        let now = Instant::now();
        for caller in 0..(2 * SHARDS * SHARD_CAPACITY) as u128 {
            meter.take(Identity(caller), now).ok();
        }
        let kept: usize = meter.due.shards.iter().map(|shard| shard.lock().unwrap().len()).sum();
        assert!(kept <= SHARDS * SHARD_CAPACITY, "{kept}");
    }

    proptest! {
        #[test]
        fn nobody_gets_more_than_the_rate(calls in 1..20_u32, gaps in prop::collection::vec(0..400_u64, 1..200)) {
            let rate = Rate { calls, per: Duration::from_secs(1) };
            let (meter, start) = (Meter::new(rate), Instant::now());
            let (mut at, mut taken) = (Duration::ZERO, Vec::new());
            for gap in gaps {
                at += Duration::from_millis(gap);
                match meter.take((), start + at) {
                    Ok(()) => taken.push(at),
                    // Who waits as long as told is let through.
                    Err(wait) => {
                        at += wait;
                        prop_assert!(meter.take((), start + at).is_ok());
                        taken.push(at);
                    }
                }
            }
            for (index, from) in taken.iter().enumerate() {
                let within = taken[index..].iter().take_while(|&&at| at < *from + rate.per).count();
                prop_assert!(within <= 2 * calls as usize, "{within} calls in one span, {calls} allowed at once");
            }
        }
    }
}
