//! The agent: a program of the operator's that stops, starts and rewinds this region's Postgres,
//! where the process cannot. Called with one more word; what else it needs comes as JSON on its
//! standard input, and its last line of standard output is its answer.

use crate::config::FailoverConfig;
use serde::Serialize;
use std::{process::Stdio, time::Duration};
use tokio::{io::AsyncWriteExt as _, process::Command};

/// What of a failed agent's words is worth telling.
const SAID_BYTES_MAX: usize = 2_000;
/// Exit code of one that must not do as told: `start`, of data that is half rewound.
const REFUSED: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the agent cannot be run")]
    Start(#[source] std::io::Error),
    #[error("the agent did not end within {0} s")]
    Late(u64),
    #[error("the agent could not {verb}: {said}")]
    Failed { verb: &'static str, said: String },
    /// As things are it must not be done; nothing was.
    #[error("the agent must not {verb}: {said}")]
    Refused { verb: &'static str, said: String },
}

/// The program, and what comes before the word.
#[derive(Debug, Clone)]
pub struct Agent {
    program: String,
    arguments: Vec<String>,
    seconds_max: u64,
}

impl Agent {
    /// `None` where no agent is configured.
    #[must_use]
    pub fn new(config: &FailoverConfig) -> Option<Self> {
        let (program, arguments) = config.agent.split_first()?;
        let (program, arguments) = (program.clone(), arguments.to_vec());
        Some(Self { program, arguments, seconds_max: config.agent_seconds_max })
    }

    /// Runs it for one verb. A call that is dropped ends the program.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn call(
        &self,
        verb: &'static str,
        input: &(impl Serialize + Sync),
    ) -> Result<String, AgentError> {
        let input = serde_json::to_vec(input).expect("plain data");
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(AgentError::Start)?;
        if let Some(mut stdin) = child.stdin.take() {
            // One that needs no input may have closed it, or ended.
            let _ = stdin.write_all(&input).await;
        }
        let bound = Duration::from_secs(self.seconds_max);
        let Ok(ended) = tokio::time::timeout(bound, child.wait_with_output()).await else {
            return Err(AgentError::Late(self.seconds_max));
        };
        let ended = ended.map_err(AgentError::Start)?;
        if !ended.status.success() {
            let said = String::from_utf8_lossy(&ended.stderr);
            let from = said.len().saturating_sub(SAID_BYTES_MAX);
            let from = (from..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or(0);
            let said = said[from..].trim().to_owned();
            return Err(match ended.status.code() {
                Some(REFUSED) => AgentError::Refused { verb, said },
                _ => AgentError::Failed { verb, said },
            });
        }
        let said = String::from_utf8_lossy(&ended.stdout);
        Ok(said.lines().last().unwrap_or_default().trim().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(script: &str, seconds_max: u64) -> Agent {
        let arguments = ["-c", script, "agent"].map(str::to_owned).to_vec();
        Agent { program: "sh".into(), arguments, seconds_max }
    }

    #[tokio::test]
    async fn its_last_line_is_its_answer_and_its_errors_are_told() {
        let echo = agent("echo first; cat; echo; echo \"did $1\"", 10);
        assert_eq!(echo.call("keep", &"input").await.unwrap(), "did keep");
        let fails = agent("echo 'no such cluster' >&2; exit 1", 10);
        let error = fails.call("stop", &()).await.unwrap_err().to_string();
        assert_eq!(error, "the agent could not stop: no such cluster");
        let refuses = agent("echo 'half rewound' >&2; exit 3", 10);
        let error = refuses.call("start", &()).await.unwrap_err();
        assert!(
            matches!(error, AgentError::Refused { verb: "start", said } if said == "half rewound")
        );
    }

    #[tokio::test]
    async fn one_that_hangs_is_ended() {
        let hangs = agent("exec sleep 600", 0);
        assert!(matches!(hangs.call("start", &()).await, Err(AgentError::Late(0))));
    }
}
