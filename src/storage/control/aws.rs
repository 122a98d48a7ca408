//! Amazon's API, as the process' own role. Which region it is asked in, a database's ARN says.

use super::{ControlError, managed::ANSWER_MAX};
use crate::vocab::{Bookmark, Platform};
use aws_config::{BehaviorVersion, Region, timeout::TimeoutConfig};
use aws_sdk_rds::{Client, types::Tag};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use tokio::sync::OnceCell;

/// Where replay was when the promotion was asked for, as a bookmark: a tag of the database.
const PROMOTED_FROM: &str = "godwit:promoted-from";

/// A database's ARN (Amazon RDS User Guide, "Amazon Resource Names (ARNs) in Amazon RDS"):
/// `arn:aws:rds:REGION:ACCOUNT:KIND:NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arn {
    pub text: String,
    pub region: String,
    pub name: String,
}

impl Arn {
    /// `None` for a text that is none of this `kind`.
    pub fn parse(text: &str, kind: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, _, "rds", region, _, found, name] = parts[..] else { return None };
        let is = arn == "arn" && found == kind && !region.is_empty() && !name.is_empty();
        is.then(|| Self { text: text.to_owned(), region: region.to_owned(), name: name.to_owned() })
    }
}

/// A client for one of Amazon's regions, made when first used.
pub(super) struct Api {
    platform: Platform,
    client: OnceCell<Client>,
}

impl Api {
    pub fn new(platform: Platform) -> Self {
        Self { platform, client: OnceCell::new() }
    }

    pub async fn client(&self, region: &str) -> &Client {
        self.client.get_or_init(|| client(region.to_owned())).await
    }

    pub fn failed(
        &self,
        what: &'static str,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> ControlError {
        ControlError::Platform { platform: self.platform, what, source: Box::new(source) }
    }

    /// Keeps it on the database itself, which outlives every process.
    pub async fn keep(&self, database: &Arn, from: Bookmark) -> Result<(), ControlError> {
        let tag = Tag::builder().key(PROMOTED_FROM).value(from.to_string()).build();
        let client = self.client(&database.region).await;
        let kept = client.add_tags_to_resource().resource_name(&database.text).tags(tag).send();
        kept.await.map(drop).map_err(|error| self.failed("keep where it is promoted from", error))
    }
}

/// What [`Api::keep`] kept.
pub(super) fn promoted_from(tags: &[Tag]) -> Option<Bookmark> {
    let tag = tags.iter().find(|tag| tag.key() == Some(PROMOTED_FROM))?;
    tag.value()?.parse().ok()
}

/// With ring in the place of the SDK's own choice: one TLS in a program.
pub(super) async fn client(region: String) -> Client {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let timeouts = TimeoutConfig::builder().operation_timeout(ANSWER_MAX).build();
    let settings = aws_config::defaults(BehaviorVersion::latest())
        .region(Region::new(region))
        .http_client(http)
        .timeout_config(timeouts)
        .load();
    Client::new(&settings.await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_tells_region_and_name() {
        let arn = Arn::parse("arn:aws:rds:eu-west-1:123456789012:db:godwit-eu", "db").unwrap();
        assert_eq!((arn.region.as_str(), arn.name.as_str()), ("eu-west-1", "godwit-eu"));
        for bad in
            ["godwit-eu", "arn:aws:rds:eu-west-1:1:cluster:godwit", "arn:aws:rds::1:db:x", ""]
        {
            assert_eq!(Arn::parse(bad, "db"), None, "{bad}");
        }
    }
}
