use super::*;
use crate::{
    lifecycle::Drained,
    telemetry::Telemetry,
    vocab::{clock::ManualClock, rng::SeededRng},
};
use tokio::sync::mpsc;

const SOON: Duration = Duration::from_secs(10);
const NEVER: Duration = Duration::from_hours(1);

struct Bench {
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    lifecycle: Lifecycle,
    loops: Loops,
}

fn bench() -> Bench {
    let clock = Arc::new(ManualClock::new());
    let metrics = Arc::new(Metrics::new(&"eu-west-1".parse().unwrap(), &Telemetry::off()));
    let lifecycle = Lifecycle::new();
    let rng = Arc::new(SeededRng::new(7));
    let loops = Loops::new(lifecycle.clone(), Arc::clone(&metrics), clock.clone(), rng);
    Bench { clock, metrics, lifecycle, loops }
}

/// Does what its function says, told how many passes this state has seen.
struct Scripted<F> {
    passes: u64,
    script: F,
}
impl<F: FnMut(u64) -> Tick + Send + 'static> Loop for Scripted<F> {
    const NAME: &'static str = "test.scripted";
    async fn tick(&mut self, _: &Op) -> Tick {
        self.passes += 1;
        (self.script)(self.passes)
    }
}
fn scripted<F: FnMut(u64) -> Tick + Send + 'static>(script: F) -> Scripted<F> {
    Scripted { passes: 0, script }
}

fn every(interval: Duration) -> Schedule {
    Schedule { interval, pass_max: SOON }
}

#[tokio::test]
async fn by_hand_each_pass_is_recorded_at_the_clocks_time() {
    let bench = bench();
    let clock = Arc::clone(&bench.clock);
    let mut driver = bench.loops.driver(every(Duration::from_secs(1)), move || {
        let clock = Arc::clone(&clock);
        scripted(move |pass| {
            clock.advance(Duration::from_millis(3));
            if pass == 1 { Tick::Worked(4) } else { Tick::Waiting("no primary".into()) }
        })
    });
    let pause = driver.step().await;
    assert!(pause >= Duration::from_millis(900) && pause <= Duration::from_millis(1_100));
    driver.step().await;
    insta::assert_json_snapshot!(bench.loops.statuses(), @r#"
    [
      {
        "name": "test.scripted",
        "interval_ms": 1000,
        "passes": 2,
        "restarts": 0,
        "last_success_at": "1970-01-01T00:00:00.003Z",
        "last": {
          "started_at": "1970-01-01T00:00:00.003Z",
          "took_us": 3000,
          "outcome": "waiting",
          "done": null,
          "reason": "no primary"
        }
      }
    ]
    "#);
    let text = bench.metrics.encode();
    for (outcome, count) in [("worked", 1), ("waiting", 1), ("idle", 0)] {
        let line = format!(
            r#"godwit_loop_ticks_total{{loop="test.scripted",outcome="{outcome}"}} {count}"#
        );
        assert!(text.contains(&line), "{line}");
    }
}

#[tokio::test]
async fn a_panic_restarts_it_with_fresh_state_ever_more_slowly() {
    let bench = bench();
    let mut driver = bench.loops.driver(every(NEVER), || {
        scripted(|pass| {
            assert!(pass < 2, "on purpose");
            Tick::Idle
        })
    });
    // The first pass of each state is well, the second panics: the state was thrown away.
    driver.step().await;
    let first = driver.step().await;
    assert!(first <= Duration::from_millis(110), "{first:?}");
    assert!(driver.step().await > SOON, "a pass that ends well ends the backoff");
    assert_eq!(bench.loops.statuses()[0].restarts, 1);

    let mut hopeless = bench.loops.driver(every(NEVER), || scripted(|_| panic!("on purpose")));
    let mut last = Duration::ZERO;
    for _ in 0..6 {
        let pause = hopeless.step().await;
        assert!(pause > last, "{pause:?} after {last:?}");
        last = pause;
    }
    for _ in 0..40 {
        last = hopeless.step().await;
    }
    assert!(last <= Duration::from_secs(33), "{last:?}");
    assert_eq!(bench.loops.statuses()[1].last.as_ref().unwrap().outcome, "panicked");
}

#[tokio::test]
async fn a_running_loop_outlives_its_panics_and_the_process_does_not_drain() {
    let bench = bench();
    let (told, mut passes) = mpsc::channel(16);
    let mut made = 0;
    bench.loops.start(every(Duration::from_millis(1)), Activator::new(), move || {
        made += 1;
        let (told, state) = (told.clone(), made);
        scripted(move |_| {
            told.try_send(state).ok();
            assert!(state > 1, "on purpose");
            Tick::Idle
        })
    });
    for expected in [1, 2, 2] {
        let pass = tokio::time::timeout(SOON, passes.recv()).await.unwrap();
        assert_eq!(pass, Some(expected));
    }
    assert!(!bench.lifecycle.draining().is_cancelled());
    bench.loops.stop();
    bench.lifecycle.finish(SOON).await;
}

#[tokio::test]
async fn an_activator_wakes_it_and_many_wake_ups_at_once_are_few_passes() {
    let bench = bench();
    let (told, mut passes) = mpsc::channel(16);
    let activator = Activator::new();
    bench.loops.start(every(NEVER), activator.clone(), move || {
        let told = told.clone();
        scripted(move |pass| {
            told.try_send(pass).ok();
            Tick::Idle
        })
    });
    assert_eq!(tokio::time::timeout(SOON, passes.recv()).await.unwrap(), Some(1));
    for _ in 0..5 {
        activator.activate();
    }
    assert_eq!(tokio::time::timeout(SOON, passes.recv()).await.unwrap(), Some(2));
    drop(activator);
    bench.loops.stop();
    bench.lifecycle.finish(SOON).await;
    // The first woke it; all that came after it can only have left one mark.
    let mut further = 0;
    while passes.recv().await.is_some() {
        further += 1;
    }
    assert!(further <= 1, "{further}");
}

#[tokio::test]
async fn it_goes_on_while_the_process_drains() {
    let bench = bench();
    let (told, mut passes) = mpsc::channel(1);
    let activator = Activator::new();
    bench.loops.start(every(NEVER), activator.clone(), move || {
        let told = told.clone();
        scripted(move |pass| {
            told.try_send(pass).ok();
            Tick::Idle
        })
    });
    assert_eq!(tokio::time::timeout(SOON, passes.recv()).await.unwrap(), Some(1));
    bench.lifecycle.drain();
    for expected in 2..5 {
        activator.activate();
        assert_eq!(tokio::time::timeout(SOON, passes.recv()).await.unwrap(), Some(expected));
    }
    bench.loops.stop();
    assert_eq!(bench.lifecycle.finish(NEVER).await, Drained::Whole);
}

/// Hangs in the middle of its pass, with half of its work done.
struct Stuck {
    work: Arc<Mutex<Vec<&'static str>>>,
    reached: Arc<Notify>,
}
impl Loop for Stuck {
    const NAME: &'static str = "test.stuck";
    async fn tick(&mut self, _: &Op) -> Tick {
        let had_first_half = lock(&self.work).contains(&"first half");
        if had_first_half {
            lock(&self.work).push("second half");
            return Tick::Worked(1);
        }
        lock(&self.work).push("first half");
        self.reached.notify_one();
        std::future::pending().await
    }
}

#[tokio::test]
async fn cancelled_in_the_middle_of_a_pass_it_ends_at_once_and_goes_on_when_run_again() {
    let (first, work, reached) = (bench(), Arc::default(), Arc::new(Notify::new()));
    let make = {
        let (work, reached) = (Arc::clone(&work), Arc::clone(&reached));
        move || Stuck { work: Arc::clone(&work), reached: Arc::clone(&reached) }
    };
    first.loops.start(every(NEVER), Activator::new(), make.clone());
    tokio::time::timeout(SOON, reached.notified()).await.unwrap();
    first.loops.stop();
    assert_eq!(
        tokio::time::timeout(SOON, first.lifecycle.finish(NEVER)).await.unwrap(),
        Drained::Whole
    );
    assert_eq!(*lock(&work), ["first half"]);

    let second = bench();
    second.loops.driver(every(NEVER), make).step().await;
    assert_eq!(*lock(&work), ["first half", "second half"]);
    assert_eq!(second.loops.statuses()[0].last.as_ref().unwrap().done, Some(1));
}

#[tokio::test]
async fn a_pass_that_takes_too_long_is_dropped_and_said_so() {
    let bench = bench();
    let (work, reached) = (Arc::default(), Arc::new(Notify::new()));
    let schedule = Schedule { interval: NEVER, pass_max: Duration::from_millis(5) };
    let make = || Stuck { work: Arc::clone(&work), reached: Arc::clone(&reached) };
    let mut driver = bench.loops.driver(schedule, make);
    tokio::time::timeout(SOON, driver.step()).await.unwrap();
    let status = bench.loops.statuses().remove(0);
    assert_eq!(status.last.unwrap().outcome, "timed_out");
    assert_eq!(status.last_success_at, None);
}
