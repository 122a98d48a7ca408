//! What kind of problem a document of ours is of: its `type` (RFC 9457 section 3.1.1).

const BEGINS: &str = "urn:godwit:problem:";

/// The `type` of a kind.
#[must_use]
pub fn problem_type(kind: &str) -> String {
    format!("{BEGINS}{kind}")
}

/// The kind of a `type`; `None` for one that is not ours.
#[must_use]
pub fn problem_kind(r#type: &str) -> Option<&str> {
    r#type.strip_prefix(BEGINS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_as_it_is_told() {
        assert_eq!(problem_kind(&problem_type("fenced")), Some("fenced"));
        assert_eq!(problem_kind("about:blank"), None);
    }
}
