//! A region's API processes: their settings, and whether they are up.

use super::{
    layout::{Layout, make_dir, write_private},
    links::{Kind, LinkId},
    ports::{Ports, local},
    postgres, redis,
    secrets::Secrets,
    spec::Spec,
};
use crate::vocab::Region;
use anyhow::Context as _;
use std::{fmt::Write as _, net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Longest run of the agent: a laboratory's databases are small.
const AGENT_SECONDS_MAX: u64 = 180;

/// Longest answer worth reading.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

pub fn base_url(port: u16) -> String {
    format!("http://{}", local(port))
}

/// Writes the settings of every API process of a region.
pub fn configure(
    layout: &Layout,
    spec: &Spec,
    region: &Region,
    ports: &Ports,
    secrets: &Secrets,
) -> anyhow::Result<()> {
    let own = ports.of(region)?;
    for process in 1..=own.apis.len() {
        let path = layout.config_of(region, process);
        make_dir(path.parent().context("a file without a directory")?, 0o700)?;
        let mut text = settings(region, process, ports, secrets)?;
        text.push_str(&failover(layout, spec, region)?);
        write_private(&path, text.as_bytes()).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

fn settings(
    region: &Region,
    process: usize,
    ports: &Ports,
    secrets: &Secrets,
) -> anyhow::Result<String> {
    let own = ports.of(region)?;
    let listen = own.apis.get(process - 1).context("no such process")?;
    let mut text = format!("# Made by `godwit lab up`, anew each time.\nregion = \"{region}\"\n");
    for (name, there) in &ports.regions {
        let link = LinkId { from: region.clone(), to: name.clone(), kind: Kind::Http };
        // Others are reached through their relay from here.
        let internal = ports.links.get(&link).copied().unwrap_or(listen.internal);
        let link = LinkId { kind: Kind::Postgres, ..link };
        let postgres = ports.links.get(&link).copied().unwrap_or(own.postgres);
        let public = there.apis.first().map_or(listen.public, |api| api.public);
        write!(
            text,
            "\n[regions.{name}]\ninternal_url = \"{}\"\npublic_url = \"{}\"\n\
             replication = \"{}\"\n",
            base_url(internal),
            base_url(public),
            postgres::following(secrets, postgres)
        )?;
    }
    write!(
        text,
        "
[cluster]
envelope_key_current = \"lab\"
[cluster.envelope_keys.lab]
secret = \"{envelope}\"

[server]
public_addr = \"{public}\"
internal_addr = \"{internal}\"
ops_addr = \"{ops}\"
drain_seconds_max = 2

[database]
url = \"{app}\"
read_url = \"{reader}\"
owner_url = \"{owner}\"
control_url = \"{control}\"

[redis]
url = \"{redis}\"

# A load test is one credential at one address.
[limits]
credential = {{ per_second = 200000, burst = 400000 }}
address = {{ per_second = 200000, burst = 400000 }}
refused = {{ per_second = 1000, burst = 5000 }}
",
        envelope = secrets.envelope,
        public = local(listen.public),
        internal = local(listen.internal),
        ops = local(listen.ops),
        app = postgres::url("godwit_app", &secrets.app, own.postgres),
        reader = postgres::url("godwit_reader", &secrets.reader, own.postgres),
        owner = postgres::url("godwit_owner", &secrets.owner, own.postgres),
        control = postgres::url("godwit_control", &secrets.control, own.postgres),
        redis = redis::url(&secrets.redis, own.redis),
    )?;
    Ok(text)
}

/// What moving the primary takes beside addresses.
fn failover(layout: &Layout, spec: &Spec, region: &Region) -> anyhow::Result<String> {
    let text = |path: &Path| {
        let text = path.to_str().with_context(|| format!("{} is no text", path.display()))?;
        // JSON's quoting is TOML's.
        anyhow::Ok(serde_json::to_string(text)?)
    };
    Ok(format!(
        "
# A region whose Redis was started anew grants again after one term: soon, as whole laboratories
# are started anew.
[lease]
term_ms = 2000
renew_interval_ms = 500
renew_ms_max = 500

[failover]
durability = \"{durability}\"
agent = [{binary}, \"lab\", \"agent\", \"--dir\", {root}, \"{region}\"]
agent_seconds_max = {AGENT_SECONDS_MAX}
",
        durability = spec.durability.word(),
        binary = text(&spec.binary)?,
        root = text(layout.root())?,
    ))
}

/// Asks with GET. `Err` says what else than 200 came.
pub async fn get(address: SocketAddr, path: &str) -> Result<String, String> {
    let ask = async {
        let mut stream = TcpStream::connect(address).await?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = match tokio::time::timeout(Duration::from_secs(2), ask).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("no answer".into()),
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or("no status");
    if status == "200" { Ok(body.to_owned()) } else { Err(format!("{status} {body}")) }
}

/// Whether an API process was told to end, by its ops listener: that goes last.
pub async fn is_ending(ops: u16) -> bool {
    match get(local(ops), "/api/health/readiness").await {
        Ok(_) => false,
        Err(said) => {
            said.contains(r#""draining":true"#) || TcpStream::connect(local(ops)).await.is_err()
        }
    }
}

/// Whether a region's `/health` says that nothing is amiss.
pub async fn sound(port: u16) -> Result<(), String> {
    let body = get(local(port), "/health").await?;
    let status = serde_json::from_str::<serde_json::Value>(&body)
        .ok()
        .and_then(|health| Some(health.get("status")?.as_str()? == "ok"));
    if status == Some(true) { Ok(()) } else { Err(body) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        lab::{
            ports::Ports,
            spec::{Durability, PortPlan, known_regions},
        },
    };
    use secrecy::ExposeSecret as _;

    #[test]
    fn a_region_reaches_itself_directly_and_the_others_through_their_relays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        let secrets = Secrets::of(&layout).unwrap();
        let ports = Ports::take(PortPlan::Free, &known_regions(), 2).unwrap();
        let mut spec = Spec::new(dir.path().into(), "/a \"b\"/godwit".into(), "".into());
        spec.durability = Durability::Quorum;
        for region in known_regions() {
            configure(&layout, &spec, &region, &ports, &secrets).unwrap();
            for process in [1, 2] {
                let config = Config::load(Some(&layout.config_of(&region, process))).unwrap();
                let own = ports.regions[&region].apis[process - 1];
                assert_eq!(config.server.public_addr.port(), own.public);
                assert_eq!(config.regions[&region].internal_url, base_url(own.internal));
                assert_eq!(config.failover.durability.word(), "quorum");
                assert_eq!(config.failover.agent[0], "/a \"b\"/godwit");
                assert_eq!(config.failover.agent.last().unwrap(), region.as_str());
                let follows = |of: &Region, port: u16| {
                    let told = config.regions[of].replication.as_ref().unwrap();
                    told.expose_secret().contains(&format!(" port={port} "))
                };
                assert!(follows(&region, ports.regions[&region].postgres));
                for (peer, facts) in config.peers() {
                    let link = LinkId { from: region.clone(), to: peer.clone(), kind: Kind::Http };
                    assert_eq!(facts.internal_url, base_url(ports.links[&link]));
                    let link = LinkId { kind: Kind::Postgres, ..link };
                    assert!(follows(peer, ports.links[&link]));
                }
            }
        }
    }
}
