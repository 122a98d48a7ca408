//! The commands that move the primary, as a test runs them.

use crate::harness::Cluster;
use anyhow::{Context as _, bail, ensure};
use std::process::{Output, Stdio};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStderr, Command},
};

/// Runs a command that moves the primary, to whatever end.
pub fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_godwit"));
    command.args(arguments).args(["--output", "json", "--lab"]).arg(cluster.dir());
    command.kill_on_drop(true);
    command
}

pub fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text)).concat()
}

/// Demands that a command refuses for its safety, and gives what it says.
pub async fn refused(cluster: &Cluster, arguments: &[&str]) -> anyhow::Result<String> {
    let output = command(cluster, arguments).output().await?;
    ensure!(output.status.code() == Some(3), "{}: {}", output.status, said(&output));
    Ok(said(&output))
}

/// A command that tells what it does.
pub struct Told {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    said: Vec<String>,
}

impl Told {
    /// Runs a command until it tells of the end of its `count`th step.
    pub async fn until_step(
        cluster: &Cluster,
        arguments: &[&str],
        count: usize,
    ) -> anyhow::Result<Self> {
        Self::until(cluster, arguments, |said| {
            said.iter().filter(|line| line.starts_with("  ok ")).count() == count
        })
        .await
    }

    async fn until(
        cluster: &Cluster,
        arguments: &[&str],
        reached: impl Fn(&[String]) -> bool,
    ) -> anyhow::Result<Self> {
        let mut child = command(cluster, &[arguments, &["--progress"]].concat())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().context("its words")?).lines();
        let mut said = Vec::new();
        while let Some(line) = lines.next_line().await? {
            said.push(line);
            if reached(&said) {
                return Ok(Self { child, lines, said });
            }
        }
        bail!("{arguments:?} ended before that: {said:#?}")
    }

    /// Lets it come to whatever end.
    pub async fn end(mut self) -> anyhow::Result<Vec<String>> {
        while let Some(line) = self.lines.next_line().await? {
            self.said.push(line);
        }
        self.child.wait().await?;
        Ok(self.said)
    }
}

/// Runs a command until it tells of the end of its `count`th step, and kills it then. Returns what it told.
pub async fn killed_after(
    cluster: &Cluster,
    arguments: &[&str],
    count: usize,
) -> anyhow::Result<Vec<String>> {
    let mut told = Told::until_step(cluster, arguments, count).await?;
    told.child.kill().await?;
    Ok(told.said)
}

/// Runs a command until it tells that a step of this name begins, and kills it then. Returns what it told.
pub async fn killed_in(
    cluster: &Cluster,
    arguments: &[&str],
    step: &str,
) -> anyhow::Result<Vec<String>> {
    let begins = format!("  .. {step}:");
    let begun = |said: &[String]| said.last().is_some_and(|line| line.starts_with(&begins));
    let mut told = Told::until(cluster, arguments, begun).await.context(begins.clone())?;
    told.child.kill().await?;
    Ok(told.said)
}
