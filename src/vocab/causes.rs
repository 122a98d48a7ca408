//! An error told in one line.

use std::error::Error;

/// An error and its causes, the outermost first. What a driver says again of its cause is said once.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut told: Vec<String> = Vec::new();
    for cause in std::iter::successors(Some(error), |error| (*error).source()) {
        let cause = cause.to_string();
        if !told.last().is_some_and(|last| last.contains(&cause)) {
            told.push(cause);
        }
    }
    told.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_is_told_once() {
        let error = anyhow::anyhow!("refused").context("no answer: refused").context("no lease");
        assert_eq!(causes(error.as_ref()), "no lease: no answer: refused");
    }
}
