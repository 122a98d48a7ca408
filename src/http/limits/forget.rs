//! Forgets callers whose local bound is full again, so that an hour without Redis costs no memory for
//! good.

use super::Limiter;
use crate::{
    loops::{Loop, Schedule, Tick},
    vocab::Op,
};
use std::{sync::Arc, time::Duration};

pub struct ForgetLoop {
    limiter: Arc<Limiter>,
}

impl ForgetLoop {
    #[must_use]
    pub fn new(limiter: Arc<Limiter>) -> Self {
        Self { limiter }
    }

    /// A caller costs some fifty bytes: what comes within a minute fits.
    #[must_use]
    pub const fn schedule() -> Schedule {
        Schedule { interval: Duration::from_mins(1), pass_max: Duration::from_secs(10) }
    }
}

impl Loop for ForgetLoop {
    const NAME: &'static str = "limits.forget";

    async fn tick(&mut self, _: &Op) -> Tick {
        match self.limiter.forget_idle() {
            0 => Tick::Idle,
            forgotten => Tick::Worked(forgotten),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Bucket, LimitsConfig},
        storage::redis::testing::connect,
        telemetry::{Metrics, Telemetry},
        vocab::{OpKind, SystemClock},
    };
    use std::net::{IpAddr, Ipv4Addr};

    #[tokio::test]
    async fn callers_of_a_time_without_redis_are_forgotten() {
        let mute = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let redis = connect(mute.local_addr().unwrap().port());
        let bucket = Bucket { per_second: 1_000_000, burst: 1 };
        let config = LimitsConfig { address: bucket, ..LimitsConfig::default() };
        let limiter = Arc::new(Limiter::new(&config, redis, Arc::new(SystemClock)));
        let metrics = Metrics::new(&"us-east-1".parse().unwrap(), &Telemetry::off());
        let op = Op::system(OpKind::Test, Duration::from_secs(60));
        let asks = (0..10).map(|number| {
            let address = IpAddr::V4(Ipv4Addr::from_bits(number));
            limiter.address(address, &op, &metrics)
        });
        assert!(futures_util::future::join_all(asks).await.iter().all(|standing| standing.local));
        let mut forgets = ForgetLoop::new(Arc::clone(&limiter));
        let mut forgotten = 0;
        while forgotten < 10 {
            assert!(!op.remaining().is_zero(), "{forgotten} forgotten");
            if let Tick::Worked(some) = forgets.tick(&op).await {
                forgotten += some;
            }
        }
        assert_eq!(forgets.tick(&op).await, Tick::Idle);
    }
}
