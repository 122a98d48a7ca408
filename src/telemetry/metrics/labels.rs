//! Label values that are known beforehand.

/// A set of label values, all counted from zero.
pub trait Label: Copy + 'static {
    /// The labels' names.
    const NAMES: &'static [&'static str];
    /// Every value, in the order of [`Label::index`].
    fn all() -> Vec<Self>;
    fn index(self) -> usize;
    /// One value for each name.
    fn values(self) -> Vec<&'static str>;
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident($name:literal) { $($variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $type { $($variant),+ }

        impl $type {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl Label for $type {
            const NAMES: &'static [&'static str] = &[$name];
            fn all() -> Vec<Self> {
                Self::ALL.to_vec()
            }
            fn index(self) -> usize {
                self as usize
            }
            fn values(self) -> Vec<&'static str> {
                vec![self.as_str()]
            }
        }
    };
}

label!(
    /// How a request was answered; the words of the `Godwit-Route` header, and refusal.
    Route("decision") {
        Local = "local",
        Waited = "waited",
        Forwarded = "forwarded",
        Queued = "queued",
        Refused = "refused",
    }
);
label!(
    /// How a wait for a bookmark ended.
    WaitOutcome("outcome") { Reached = "reached", TimedOut = "timed_out", Lost = "lost" }
);
label!(
    /// What this region is to the cluster, as far as it knows.
    Role("role") { Primary = "primary", Replica = "replica", Unknown = "unknown" }
);
label!(
    /// How the schema stands to what the program needs.
    Schema("standing") { Current = "current", Newer = "newer", Old = "old", Unknown = "unknown" }
);
label!(
    /// What a process shows to other regions: on its internal listener, and when it connects to theirs.
    Certificate("certificate") { Internal = "internal", Peer = "peer" }
);
label!(
    /// A circuit breaker, as `godwit_breaker_state` numbers it.
    Breaker("state") { Closed = "closed", HalfOpen = "half_open", Open = "open" }
);
label!(
    /// How a hop to a peer ended. `Refused`: the breaker was open, nothing was sent.
    ForwardOutcome("outcome") {
        Answered = "answered",
        Failed = "failed",
        TimedOut = "timed_out",
        Refused = "refused",
    }
);
label!(
    /// What a region answered to a request for the lease. `Failed`: nothing, in time.
    LeaseAnswer("outcome") {
        Granted = "granted",
        Quiet = "quiet",
        Taken = "taken",
        Outranked = "outranked",
        Unheard = "unheard",
        OtherTerm = "other_term",
        Failed = "failed",
    }
);
label!(
    /// Which connections.
    Pool("pool") { Read = "read", Write = "write", Watch = "watch" }
);
label!(
    PoolState("state") { Idle = "idle", Busy = "busy" }
);
label!(
    QueueState("state") { Queued = "queued", Dead = "dead" }
);
label!(
    /// Where a session was found.
    SessionSource("where") {
        Local = "local",
        Directory = "directory",
        Home = "home",
        Primary = "primary",
        Peer = "peer",
        Nowhere = "nowhere",
    }
);
label!(
    /// How a loop's pass ended.
    TickOutcome("outcome") {
        Idle = "idle",
        Worked = "worked",
        Waiting = "waiting",
        TimedOut = "timed_out",
        Panicked = "panicked",
    }
);
label!(
    SpanOutcome("outcome") { Exported = "exported", Failed = "failed" }
);
label!(
    /// Which rate limit.
    Bucket("bucket") {
        Credential = "credential",
        Address = "address",
        Refused = "refused",
        Registration = "registration",
        SignInAddress = "sign_in_address",
        SignInAccount = "sign_in_account",
        SignInFamiliar = "sign_in_familiar",
        Person = "person",
    }
);
label!(
    Verdict("verdict") { Allowed = "allowed", Refused = "refused" }
);

/// A rate-limit decision. `local`: by this process's own bound, because Redis was away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateDecision {
    pub bucket: Bucket,
    pub verdict: Verdict,
    pub local: bool,
}

impl Label for RateDecision {
    const NAMES: &'static [&'static str] = &["bucket", "source", "verdict"];
    fn all() -> Vec<Self> {
        let of = |bucket, local| {
            Verdict::ALL.iter().map(move |&verdict| Self { bucket, verdict, local })
        };
        let sources =
            |&bucket: &Bucket| [false, true].into_iter().flat_map(move |local| of(bucket, local));
        Bucket::ALL.iter().flat_map(sources).collect()
    }
    fn index(self) -> usize {
        (self.bucket as usize * 2 + usize::from(self.local)) * Verdict::ALL.len()
            + self.verdict as usize
    }
    fn values(self) -> Vec<&'static str> {
        vec![
            self.bucket.as_str(),
            if self.local { "local" } else { "shared" },
            self.verdict.as_str(),
        ]
    }
}

/// A pool and what its connections do.
#[derive(Clone, Copy)]
pub(super) struct PoolLabel(pub(super) Pool, pub(super) PoolState);

impl Label for PoolLabel {
    const NAMES: &'static [&'static str] = &["pool", "state"];
    fn all() -> Vec<Self> {
        Pool::ALL
            .iter()
            .flat_map(|&pool| PoolState::ALL.iter().map(move |&state| Self(pool, state)))
            .collect()
    }
    fn index(self) -> usize {
        self.0 as usize * PoolState::ALL.len() + self.1 as usize
    }
    fn values(self) -> Vec<&'static str> {
        vec![self.0.as_str(), self.1.as_str()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ordered<L: Label>() {
        for (at, label) in L::all().into_iter().enumerate() {
            assert_eq!(label.index(), at);
            assert_eq!(label.values().len(), L::NAMES.len());
        }
    }

    #[test]
    fn every_label_is_found_where_it_was_put() {
        ordered::<Route>();
        ordered::<Role>();
        ordered::<RateDecision>();
        ordered::<PoolLabel>();
        ordered::<Schema>();
        ordered::<SessionSource>();
    }
}
