//! What of people and their sessions this region cannot say alone: it asks the region that began a session,
//! and the primary.
//!
//! A session is over only when somebody who must know has said so. Where they cannot be asked the answer is
//! 503, never 401: a client that is told that it is signed out forgets who it was.

use super::{
    app::App,
    limits::address_of,
    problem::{Kind, Problem},
};
use crate::{
    identity::{
        Lookup, Password, SessionToken, StoredHash, password::Verdict, resolve::vouched_user,
    },
    queue::{RecordError, sessions::note},
    routing::PrimaryView,
    storage::{
        StorageError,
        global::{
            credentials::{self, Credentials, Rehash},
            hot::HotReads,
            sessions::{DEVICE_CHARS_MAX, Known, Live},
        },
        redis::{
            Redis,
            sessions::{self as kept, Debt, Owed},
        },
    },
    telemetry::metrics::SessionSource,
    topology::ask::{Answer, OfPeople, Question, Seen},
    vocab::{Email, Op, Region, TokenHash},
};
use actix_web::{HttpRequest, http::header};
use futures_util::{StreamExt as _, stream::FuturesUnordered};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

/// Longest wait for a region that is asked.
const PATIENCE: Duration = Duration::from_secs(3);
/// Left of a request's time when it ends.
const LEFT_FOR_THE_ANSWER: Duration = Duration::from_millis(250);

async fn ask(app: &App, region: &Region, question: OfPeople, op: &Op) -> Option<Answer> {
    let asker = app.peers.get(region)?;
    let patience = PATIENCE.min(op.remaining().saturating_sub(LEFT_FOR_THE_ANSWER));
    match asker.ask(Question::People(question), patience, op).await {
        Ok(Answer::Failed { reason }) => {
            tracing::debug!(%region, reason, "a region could not tell of somebody");
            None
        }
        Ok(answer) => Some(answer),
        Err(error) => {
            tracing::debug!(%region, error = %error, "a region was asked of somebody");
            None
        }
    }
}

fn unknown() -> Problem {
    let detail = "Whether you are signed in cannot be found out at this moment.";
    Problem::new(Kind::Unavailable, detail).header("retry-after", "1")
}

/// Looks a session up: here, then where it began and at the primary.
///
/// # Errors
/// `unavailable` when nobody who would have to know can be asked.
pub async fn look_up(
    app: &App,
    redis: &Redis,
    hot: &HotReads,
    token: &SessionToken,
    op: &Op,
) -> Result<Lookup, Problem> {
    match app.sessions.find(&token.hash(), redis, hot, op).await {
        Ok(Lookup::Absent { asked }) => Box::pin(elsewhere(app, hot, token, asked, op)).await,
        Ok(found) => Ok(found),
        Err(error) => {
            tracing::debug!(error = %error, "a session cannot be looked up here, others are asked");
            Box::pin(elsewhere(app, hot, token, false, op)).await
        }
    }
}

/// Looks a session up where it began and at the primary, side by side. `asked`: this region's Redis does not
/// have it.
///
/// # Errors
/// `unavailable` when nobody who would have to know can be asked.
async fn elsewhere(
    app: &App,
    hot: &HotReads,
    token: &SessionToken,
    asked: bool,
    op: &Op,
) -> Result<Lookup, Problem> {
    let home = token.home();
    let (primary, here) = match app.primary() {
        PrimaryView::Here(_) => (None, true),
        PrimaryView::Peer(region, _) => (Some(region), false),
        _ => (None, false),
    };
    // What a region that is gone for good knew is gone with it.
    let is_member = |region: &Region| app.topology.look(|seen| seen.members().contains(region));
    let gone = !is_member(home);
    let at_home = (*home != app.region && !gone).then_some(home);
    let primary = primary.as_ref().filter(|region| at_home != Some(*region));
    let asked_first: Vec<_> = at_home.into_iter().chain(primary).collect();
    let nobody = match first_who_knows(app, hot, token, asked_first.iter().copied(), op).await {
        Ok(found) => return Ok(found),
        Err(nobody) => nobody,
    };
    let home_has_none = gone || *home == app.region && asked || nobody.home;
    let primary_has_none = here && asked || nobody.primary;
    if !(home_has_none && primary_has_none) {
        app.metrics.people.session_lookups.count(SessionSource::Nowhere);
        return Err(unknown());
    }
    // What was begun while there was no primary may be owed by one that was told of it.
    let others = app.peers.keys().filter(|region| !asked_first.contains(region));
    let others = others.filter(|region| is_member(region));
    let Ok(found) = first_who_knows(app, hot, token, others, op).await else {
        app.metrics.people.session_lookups.count(SessionSource::Nowhere);
        return Ok(Lookup::Absent { asked });
    };
    Ok(found)
}

/// Who has said that they do not know a session.
#[derive(Default)]
struct Nobody {
    home: bool,
    primary: bool,
}

/// Asks regions for a session side by side, and believes who knows it first.
async fn first_who_knows(
    app: &App,
    hot: &HotReads,
    token: &SessionToken,
    regions: impl Iterator<Item = &Region>,
    op: &Op,
) -> Result<Lookup, Nobody> {
    let reached = regions.filter(|region| app.topology.reaches(region));
    let mut asks: FuturesUnordered<_> = reached
        .map(|region| async move {
            (region, ask(app, region, OfPeople::Session { token: token.hash() }, op).await)
        })
        .collect();
    let primary = match app.primary() {
        PrimaryView::Peer(region, _) => Some(region),
        _ => None,
    };
    let mut nobody = Nobody::default();
    while let Some((region, answer)) = asks.next().await {
        let at_home = region == token.home();
        match answer {
            Some(Answer::Session(Seen::Live(live))) => {
                let found = match &primary {
                    _ if at_home => SessionSource::Home,
                    Some(primary) if primary == region => SessionSource::Primary,
                    _ => SessionSource::Peer,
                };
                app.metrics.people.session_lookups.count(found);
                // Found is found, whether this region can keep it or not.
                let kept = app.sessions.adopt(&token.hash(), live.clone(), hot, op).await;
                return Ok(kept.unwrap_or(Lookup::Live(live)));
            }
            Some(Answer::Session(Seen::Ended)) => return Ok(Lookup::Ended),
            Some(Answer::Session(Seen::Absent { primary, asked })) => {
                nobody.primary |= primary;
                nobody.home |= asked && at_home;
            }
            _ => {}
        }
    }
    Err(nobody)
}

/// Asks the directory about a session that was found in Redis: this region's if it is new enough, else the
/// primary's.
///
/// # Errors
/// `unavailable` when neither can be asked: what cannot be confirmed is not good enough.
pub async fn confirmed(app: &App, hot: &HotReads, live: Live, op: &Op) -> Result<Lookup, Problem> {
    // Knows of neither in its first moments, and learns more than once.
    let end = app.clock.monotonic() + op.remaining() / 2;
    while !matches!(app.primary(), PrimaryView::Here(_) | PrimaryView::Peer(..))
        && !is_newer_than(app, strict_lag(app))
        && app.topology.learn(end).await
    {}
    let primary = app.primary();
    let Live { id, user, generation, .. } = live;
    // What the user may do is as it is there too: their role may be another since Redis was told.
    let role = if matches!(primary, PrimaryView::Here(_)) || is_newer_than(app, strict_lag(app)) {
        vouched_user(id, user, generation, hot, op).await?.map(|found| found.role)
    } else {
        let PrimaryView::Peer(region, _) = primary else {
            return Err(unknown());
        };
        match ask(app, &region, OfPeople::Confirm { id, user, generation }, op).await {
            Some(Answer::Confirmed(role)) => role,
            _ => return Err(unknown()),
        }
    };
    Ok(role.map_or(Lookup::Ended, |role| Lookup::Live(Live { role, ..live })))
}

fn strict_lag(app: &App) -> Duration {
    Duration::from_millis(app.sessions.config().strict_lag_ms_max)
}

/// Whether this region's replica is known to be no older than that.
fn is_newer_than(app: &App, most: Duration) -> bool {
    let now = app.clock.monotonic();
    app.topology.look(|snapshot| {
        snapshot.tellable(now).is_some() && snapshot.lag.is_some_and(|lag| lag.bound(now) <= most)
    })
}

/// Notes that a session is in use, for the directory to hear.
pub async fn tell_of_use(
    app: &App,
    request: &HttpRequest,
    token: &SessionToken,
    live: &Live,
    op: &Op,
) {
    let owed = Owed { known: known(app, request, token, live.clone(), op), at: None };
    if let Err(error) = kept::owe(&app.redis, &owed, op).await {
        tracing::debug!(error = %error, "the directory does not hear of a session in use");
    }
}

fn known(app: &App, request: &HttpRequest, token: &SessionToken, session: Live, op: &Op) -> Known {
    Known {
        session,
        token: token.hash(),
        home: token.home().clone(),
        device: device(request),
        address: address(app, request).to_string(),
        seen_at: op.now(),
        seen_in: app.region.clone(),
        ended_at: None,
    }
}

/// What a browser or program calls itself, without what a line could not hold.
fn device(request: &HttpRequest) -> String {
    let agent = request.headers().get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    let seen = agent.unwrap_or_default().chars().filter(|c| !c.is_control());
    seen.take(DEVICE_CHARS_MAX).collect()
}

/// The network address that a request comes from.
#[must_use]
pub fn address(app: &App, request: &HttpRequest) -> IpAddr {
    let address = address_of(request, &app.config.limits.trusted_proxies);
    // Every connection of ours has one.
    address.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |address| address.to_canonical())
}

/// Who wants to sign in, as far as they say.
pub struct SignIn<'a> {
    pub tenant: &'a str,
    pub email: &'a Email,
    /// The network that they come from.
    pub from: &'a str,
}

/// What is known of who wants to sign in, and where it was read.
pub struct Found {
    pub credentials: Option<Credentials>,
    /// In this region's replica: the primary may know better.
    replica: bool,
}

/// Reads what signing in needs: here, if this replica is known to be new enough, else at the primary; and
/// here again while there is none.
///
/// # Errors
/// When no database answers.
pub async fn find(app: &App, who: &SignIn<'_>, op: &Op) -> Result<Found, Problem> {
    let most = Duration::from_millis(app.sessions.config().sign_in_lag_ms_max);
    let here = matches!(app.primary(), PrimaryView::Here(_));
    if !here
        && !is_newer_than(app, most)
        && let Some(credentials) = at_primary(app, who, op).await
    {
        return Ok(Found { credentials, replica: false });
    }
    match credentials::find(&app.global, who.tenant, who.email, who.from).await {
        Ok(read) => Ok(Found { credentials: read.value, replica: !here }),
        Err(error) => match at_primary(app, who, op).await {
            Some(credentials) => Ok(Found { credentials, replica: false }),
            None => Err(error.into()),
        },
    }
}

/// `None`: there is no primary, or it does not answer.
async fn at_primary(app: &App, who: &SignIn<'_>, op: &Op) -> Option<Option<Credentials>> {
    let PrimaryView::Peer(region, _) = app.primary() else {
        return None;
    };
    let question = OfPeople::Credentials {
        tenant: who.tenant.to_owned(),
        email: who.email.clone(),
        from: who.from.to_owned(),
    };
    match ask(app, &region, question, op).await {
        Some(Answer::Credentials(found)) => Some(found),
        _ => None,
    }
}

/// Compares the password. Whom this replica does not know, or knows with another password, the primary may:
/// they have just registered, or changed it.
///
/// # Errors
/// When no turn to hash comes in time.
pub async fn check(
    app: &App,
    who: &SignIn<'_>,
    found: Found,
    password: &Password,
    op: &Op,
) -> Result<Option<Credentials>, Problem> {
    let Found { credentials, replica } = found;
    if let Some(right) = compare(app, credentials.as_ref(), password, op).await? {
        return Ok(Some(right));
    }
    if !replica {
        return Ok(None);
    }
    let Some(newer) = at_primary(app, who, op).await else {
        return Ok(None);
    };
    let hash = |of: &Option<Credentials>| of.as_ref().and_then(|of| of.hash.clone());
    if hash(&newer) == hash(&credentials) {
        return Ok(None);
    }
    compare(app, newer.as_ref(), password, op).await
}

async fn compare(
    app: &App,
    credentials: Option<&Credentials>,
    password: &Password,
    op: &Op,
) -> Result<Option<Credentials>, Problem> {
    let hash = credentials.and_then(|of| of.hash.clone()).map(StoredHash::from_stored);
    match app.passwords.verify(password, hash.as_ref(), op).await? {
        Verdict::Wrong => Ok(None),
        Verdict::Right { rehash } => {
            if let (true, Some(of), Some(old)) = (rehash, credentials, &hash) {
                renew_hash(app, of, old, password, op).await;
            }
            Ok(credentials.cloned())
        }
    }
}

/// Replaces a hash that was made at another cost. Nothing depends on it: the next time is as good.
async fn renew_hash(app: &App, of: &Credentials, old: &StoredHash, password: &Password, op: &Op) {
    let Ok(new) = app.passwords.rehash(password, op).await else { return };
    let (old, new) = (old.as_str().to_owned(), new.as_str().to_owned());
    if let Err(error) = app.registrar.rehash(Rehash { user: of.user, old, new }, op).await {
        tracing::debug!(error = %error, "a password's hash stays as it was");
    }
}

/// Begins a session: in this region's Redis, and in the directory if the primary records it in time. One of
/// the two is enough to be signed in. What is not recorded is told to the other regions.
///
/// # Errors
/// When it is kept nowhere.
pub async fn begin(
    app: &App,
    request: &HttpRequest,
    token: &SessionToken,
    session: Live,
    op: &Op,
) -> Result<(), Problem> {
    let begun = session.created_at;
    let known = Known { seen_at: begun, ..known(app, request, token, session, op) };
    let owed = Owed { known, at: None };
    let idle = app.sessions.idle_of(&owed.known.session, op);
    let here = kept::begin(&app.redis, &owed, idle, op).await;
    match (record(app, &owed, here.is_ok(), op).await, here) {
        (Ok(()), _) => Ok(()),
        // Nobody is told of it either: who signs in is told that they did not.
        (Err(_), Err(error)) => Err(error.into()),
        (Err(error), Ok(())) => {
            tell(app, owed.known, &error, op).await;
            Ok(())
        }
    }
}

/// Ends a session: in this region's Redis, and in the directory if the primary records it in time. If not,
/// the regions that can be reached are told, and owe it too.
///
/// # Errors
/// When it is ended nowhere.
pub async fn end(
    app: &App,
    request: &HttpRequest,
    token: &SessionToken,
    session: Live,
    op: &Op,
) -> Result<(), Problem> {
    let lasts = (session.expires_at - op.now()).to_std().unwrap_or_default();
    let known = Known { ended_at: Some(op.now()), ..known(app, request, token, session, op) };
    let owed = Owed { known, at: None };
    let here = kept::end_owed(&app.redis, &owed, lasts, op).await;
    app.sessions.forget(&token.hash());
    let Err(error) = record(app, &owed, here.is_ok(), op).await else {
        return Ok(());
    };
    if tell(app, owed.known, &error, op).await == 0 {
        here?;
    }
    app.sessions.ended(&token.hash(), op);
    Ok(())
}

/// Tells the other regions what is not recorded, and how many have noted it. What no primary would record
/// nobody else is to owe.
async fn tell(app: &App, known: Known, why: &RecordError, op: &Op) -> usize {
    if why.is_refusal() {
        return 0;
    }
    let left = op.remaining().saturating_sub(LEFT_FOR_THE_ANSWER).min(record_bound(app));
    let deadline = op.clock.monotonic() + left;
    app.registrar.tell(&[known], &Op { deadline, ..op.clone() }).await
}

fn record_bound(app: &App) -> Duration {
    Duration::from_millis(app.sessions.config().record_ms_max)
}

/// Tries to have it recorded now; `noted`: it is owed otherwise.
async fn record(app: &App, owed: &Owed, noted: bool, op: &Op) -> Result<(), RecordError> {
    // Without a note of it this is the only try.
    let bound = if noted { record_bound(app) } else { PATIENCE };
    let deadline = op.deadline.min(op.clock.monotonic() + bound);
    let op = Op { deadline, ..op.clone() };
    let recorded = app.registrar.record(std::slice::from_ref(&owed.known), &op).await?;
    if noted && let Ok(debt) = Debt::of(owed.clone()) {
        // If this fails it is recorded twice.
        let _ = note(&app.redis, &debt, &recorded, &op).await;
    }
    Ok(())
}

/// Answers another region's question of people.
pub async fn answer(app: &App, hot: &HotReads, question: OfPeople, op: &Op) -> Answer {
    let failed = |error: &(dyn std::error::Error + 'static)| Answer::Failed {
        reason: crate::vocab::causes(error),
    };
    match question {
        OfPeople::Record { epoch, known } => {
            match app.registrar.record_here(epoch, &known, op).await {
                Ok(recorded) => Answer::Recorded(recorded),
                Err(error) => error.answer(),
            }
        }
        OfPeople::Rehash { epoch, change } => {
            match app.registrar.rehash_here(epoch, &change, op).await {
                Ok(recorded) => Answer::Recorded(recorded),
                Err(error) => error.answer(),
            }
        }
        OfPeople::Confirm { .. } if !matches!(app.primary(), PrimaryView::Here(_)) => {
            Answer::Elsewhere
        }
        OfPeople::Confirm { id, user, generation } => {
            match vouched_user(id, user, generation, hot, op).await {
                Ok(found) => Answer::Confirmed(found.map(|found| found.role)),
                Err(error) => failed(&error),
            }
        }
        OfPeople::Session { token } => match seen(app, hot, &token, op).await {
            Ok(seen) => Answer::Session(seen),
            Err(error) => failed(&error),
        },
        OfPeople::Credentials { tenant, email, from } => {
            if !matches!(app.primary(), PrimaryView::Here(_)) {
                return Answer::Elsewhere;
            }
            match credentials::find(&app.global, &tenant, &email, &from).await {
                Ok(read) => Answer::Credentials(read.value),
                Err(error) => failed(&error),
            }
        }
        OfPeople::Owed { known } => match keep_all(app, hot, known, op).await {
            Ok(()) => Answer::Noted,
            Err(error) => failed(&error),
        },
    }
}

/// Keeps, and owes, what another region has told: it may come again, and late.
async fn keep_all(
    app: &App,
    hot: &HotReads,
    known: Vec<Known>,
    op: &Op,
) -> Result<(), StorageError> {
    let now = op.now();
    let known = known.into_iter().filter(|known| known.session.expires_at > now);
    let (ended, begun): (Vec<_>, Vec<_>) = known.partition(|known| known.ended_at.is_some());
    // First of all what needs no Redis.
    for known in &ended {
        app.sessions.ended(&known.token, op);
    }
    for known in ended {
        let lasts = (known.session.expires_at - now).to_std().unwrap_or_default();
        kept::end_owed(&app.redis, &Owed { known, at: None }, lasts, op).await?;
    }
    let mut failure = None;
    for known in begun {
        // Without the directory nothing is kept: what it would say of the session's user is not known.
        let recorded = match &failure {
            None => app.sessions.recorded(&known.token, hot, op).await,
            Some(_) => Ok(Lookup::Absent { asked: false }),
        };
        match recorded {
            // What the directory has is not owed, however often it is told.
            Ok(Lookup::Live(_) | Lookup::Ended) => continue,
            Ok(Lookup::Absent { .. }) => {}
            Err(error) => failure = Some(error),
        }
        let owed = Owed { known, at: None };
        kept::owe(&app.redis, &owed, op).await?;
        let Known { token, session, seen_at, .. } = owed.known;
        let is_idle =
            (now - seen_at).to_std().is_ok_and(|idle| idle > app.sessions.config().idle());
        if failure.is_none() && !is_idle {
            failure = app.sessions.adopt(&token, session, hot, op).await.err();
        }
    }
    failure.map_or(Ok(()), Err)
}

async fn seen(app: &App, hot: &HotReads, token: &TokenHash, op: &Op) -> Result<Seen, StorageError> {
    let primary = matches!(app.primary(), PrimaryView::Here(_));
    let found = app.sessions.find(token, &app.redis, hot, op).await?;
    // The primary is asked for what is so now.
    let found = match found {
        Lookup::Live(live) if primary => match app.sessions.recorded(token, hot, op).await? {
            Lookup::Absent { .. } => Lookup::Live(live),
            recorded => recorded,
        },
        found => found,
    };
    Ok(match found {
        Lookup::Live(live) => Seen::Live(live),
        Lookup::Ended => Seen::Ended,
        Lookup::Absent { asked } => Seen::Absent { primary, asked },
    })
}
