//! Every region lost, and where DNS sends its users: `docs/DNS.md` is made here, by `godwit drill --dns`.

use crate::harness::{self, SOON, eventually, region};
use anyhow::{Context as _, ensure};
use godwit::lab::{
    control::{Request, ask},
    dns::{DnsFacts, Users, resolve},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{fs, path::Path};

const HEAD: &str = "\
# DNS, region by region

Made by the test `dns::every_region_is_lost_and_its_users_are_served_elsewhere`, from what `godwit drill --dns` told of a laboratory. PowerDNS
answers there by the records that `terraform/modules/dns` makes in Route 53: by the user's place, then by health checks of the regions. In every row
somebody of each continent asked, went to the address that they were told, and was served by the region that is named.

";

const TAIL: &str = "
A place is a continent by Route 53's code; `*` are users that nobody can place. *Moved* is from the end of the command that lost the region until
everybody was served where the row says; *back* is from the end of the one that brought it back, which for a killed region waits until it answers,
until all were at home again. The times are one run's, and those of a laboratory: Route 53 takes longer, [below](#what-it-is-not). Nobody moved whose
own region was there; the drill fails where somebody does.

- **Killed** is SIGKILL to all of a region, **frozen** SIGSTOP to all of it: connections are accepted, and nothing answers. With its **Postgres killed** a
  region answers `/health` with 503 ([HEALTH.md](HEALTH.md)). **Drained** is its flag raised: it is well, and serves whoever comes.
- A lost primary moves its users and no primary: writes are refused everywhere until somebody promotes ([RUNBOOK.md](RUNBOOK.md)).
- Users of a lost region go to the nearest of the others, by the laboratory's distances from that region. Route 53 takes the lowest latency
  from each user's resolver, so that it may choose another one of those that are well. `terraform/modules/dns/tests/answers.json` has all that it may
  choose from, for every set of lost regions; Terraform's test holds the records to that file, and a unit test the laboratory.
- With every region drained, or every check failing, all are sent home: it may be the checks that are wrong. In that row the regions are drained one
  after the other, and the times are those of the last.

## Try it

`.ci/setup dns` installs PowerDNS and its geoip backend, and starts no server of the system's. Then:

```
godwit lab up --detach --dns
dig +short @127.0.0.1 -p 9853 godwit.example +subnet=198.51.100.105/32   # 127.0.0.12: Dublin's balancer, for somebody in Europe
curl -s http://127.0.0.12:9880/health
godwit lab drain eu-west-1                                                # in a second or two: 127.0.0.11
godwit lab undrain eu-west-1
godwit drill --dns
```

`lab.json` tells the ports (`dns`). A balancer listens on an address of its own, as in the world outside, which Linux has by itself; macOS wants
`sudo ifconfig lo0 alias 127.0.0.11` first, and so on for each region. The laboratory without `--dns` runs nothing of this; `godwit drill --dns`
starts it where it does not run.

## What it is not

| | Route 53, by `terraform/modules/dns` | here |
|---|---|---|
| who checks | checkers in several of AWS' regions; a region is well if more than 18 % of them say so | one, on the same machine |
| how often | every 10 s; three failures in a row, and three successes | every second; one of either |
| detection | about 30 s | 1 to 3 s |
| over | HTTPS to `REGION.DOMAIN`, by TLS and a real balancer | HTTP to a relay |
| users' places | the database of AWS, by the resolver's address or its client subnet | a network of the documentation's addresses for each continent |
| who is near | measured latencies | the laboratory's distances |
| drain flag | an object in another region's bucket, which is lost with that region: then nobody is drained | one place, which is never lost |
| canaries | weighted records | none |

No resolver stands between: what an answer's 60 s (its TTL there and here) add is not in the times above. So a user of the real thing is moved after
some 30 s of checks and up to 60 s of their resolver's cache, and later where a resolver or a program keeps answers for longer than it may. Connections
that are open stay where they are: a drained region goes on serving them.
";

pub async fn every_region_is_lost_and_its_users_are_served_elsewhere() -> anyhow::Result<()> {
    if !cfg!(target_os = "linux") {
        eprintln!("skipped: only Linux has an address for each balancer by itself");
        return Ok(());
    }
    let report = harness::own(
        "dns",
        |_| (),
        async |cluster| {
            ensure!(cluster.facts.dns.is_none(), "DNS runs, and nobody asked for it");
            let out = tempfile::tempdir()?;
            let text = out.path().to_str().context("a path")?;
            let report = cluster.command(&["drill", "--dns", "--out", text]).await?;
            let saved: Value = serde_json::from_slice(&fs::read(out.path().join("dns.json"))?)?;
            ensure!(saved == report, "what is saved is not what is told");
            an_ended_name_server_is_started_again(cluster.dir()).await?;
            Ok(report)
        },
    )
    .await?;
    let made = format!("{HEAD}{}{TAIL}", tables(&report)?);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    fs::write(root.join("target/DNS.md"), &made)?;
    let there = fs::read_to_string(root.join("docs/DNS.md")).unwrap_or_default();
    ensure!(
        timeless(&there) == timeless(&made),
        "`cp target/DNS.md docs/DNS.md`, then look at the diff"
    );
    Ok(())
}

/// Flags that are up stay up.
async fn an_ended_name_server_is_started_again(dir: &Path) -> anyhow::Result<()> {
    let facts = async |request| {
        let status = ask(dir, &request).await?;
        anyhow::Ok(status.dns.context("DNS runs")?)
    };
    let drained = region("eu-west-1");
    let dns = facts(Request::Drain { region: drained.clone(), drained: true }).await?;
    is_sent(&dns, "EU", "us-east-1").await?;
    let pid = dns.pid.context("it has a process id")?;
    kill(Pid::from_raw(pid), Signal::SIGKILL)?;
    eventually("the end of the name server", SOON, async || {
        let dns = facts(Request::Status).await.map_err(|error| format!("{error:#}"))?;
        if dns.pid.is_none() { Ok(()) } else { Err("it runs".to_owned()) }
    })
    .await?;
    let again = facts(Request::Dns).await?;
    ensure!(again.pid.is_some_and(|new| new != pid), "{again:?}");
    ensure!(facts(Request::Dns).await? == again, "asked for twice, it is another one");
    is_sent(&again, "EU", "us-east-1").await?;
    let dns = facts(Request::Drain { region: drained, drained: false }).await?;
    is_sent(&dns, "EU", "eu-west-1").await
}

async fn is_sent(dns: &DnsFacts, place: &str, to: &str) -> anyhow::Result<()> {
    let regions: Vec<_> = dns.balancers.keys().cloned().collect();
    let places = godwit::lab::dns::Places::of(&regions)?;
    let is_there = |users: &&Users| users.place == place;
    let users = places.users().iter().find(is_there).context("no such place")?;
    let balancer = dns.balancers.get(&region(to)).context("no such region")?.ip();
    eventually(&format!("users of {place} in {to}"), SOON, async || {
        let told = resolve(dns.server, &dns.domain, users.address).await?;
        if told == [balancer] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await
}

fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The users' places, and the truth table.
fn tables(report: &Value) -> anyhow::Result<String> {
    let regions = words(&report["regions"]);
    let users = report["users"].as_array().context("users")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let places_of = |home: &str| {
        let here = users.iter().filter(|users| users["home"] == home);
        let place = |users: &Value| match text(&users["place"]).as_str() {
            "*" => "`*`".to_owned(),
            place => place.to_owned(),
        };
        here.map(place).collect::<Vec<_>>().join(", ")
    };
    let head = regions.iter().map(|home| format!("{} ({home})", places_of(home)));
    let mut rows = vec![
        [
            vec!["lost".to_owned(), "how".into()],
            head.collect(),
            vec!["moved".into(), "back".into()],
        ]
        .concat(),
        vec!["---".to_owned(); regions.len() + 4],
    ];
    let took = |ms: &Value| {
        let seconds = ms.as_f64().context("it never came to its end")? / 1_000.0;
        anyhow::Ok(format!("{seconds:.1} s"))
    };
    for case in report["cases"].as_array().context("cases")? {
        let how = match case["how"].as_str() {
            Some("api") => "API processes killed",
            Some("postgres") => "Postgres killed",
            Some(other) => other,
            None => "?",
        };
        let sent = |home: &&str| {
            let here = users.iter().filter(|users| users["home"] == **home);
            let mut told: Vec<_> =
                here.map(|users| text(&case["answers"][text(&users["place"])])).collect();
            told.dedup();
            told.join(", ")
        };
        let cells = [vec![words(&case["lost"]).join(", "), how.to_owned()]].concat();
        let times = vec![took(&case["moved_ms"])?, took(&case["back_ms"])?];
        rows.push([cells, regions.iter().map(sent).collect(), times].concat());
    }
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    Ok(rows.into_iter().map(line).collect())
}

/// A page without what was measured, which is another each time.
fn timeless(page: &str) -> String {
    let is_time = |cell: &str| cell.strip_suffix(" s").is_some_and(|n| n.parse::<f64>().is_ok());
    let cell = |cell: &str| if is_time(cell.trim()) { "_".to_owned() } else { cell.to_owned() };
    let line = |line: &str| line.split('|').map(cell).collect::<Vec<_>>().join("|");
    page.lines().map(line).collect::<Vec<_>>().join("\n")
}
