//! `CloudNativePG`: a replica cluster across Kubernetes clusters, each region's `Cluster` object of which says
//! who is the primary (`CloudNativePG` documentation, "Replica clusters", distributed topology).

use super::{
    Acting, ControlError, Promotion,
    managed::{Managing, Told},
};
use crate::{
    config::Config,
    vocab::{Bookmark, Platform},
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

/// Where replay was when the promotion was asked for, as a bookmark: an annotation of the `Cluster`.
const PROMOTED_FROM: &str = "godwit/promoted-from";
/// The token of a demotion before this one, so that it is not taken for its own.
const TOKEN_BEFORE: &str = "godwit/demotion-token-before";

pub(super) struct CloudNativePg {
    /// The `Cluster`'s name.
    own: String,
    clusters: OnceCell<Api<DynamicObject>>,
}

impl CloudNativePg {
    pub fn new(config: &Config) -> Self {
        let own = config.regions.get(&config.region).and_then(|own| own.database.clone());
        Self { own: own.unwrap_or_default(), clusters: OnceCell::new() }
    }

    /// Of the process' own namespace, as its service account, or as `KUBECONFIG` says.
    async fn clusters(&self) -> Result<&Api<DynamicObject>, ControlError> {
        let made = self.clusters.get_or_try_init(|| async {
            let client = Client::try_default().await?;
            let namespace = client.default_namespace().to_owned();
            let kind = ApiResource {
                group: "postgresql.cnpg.io".to_owned(),
                version: "v1".to_owned(),
                api_version: "postgresql.cnpg.io/v1".to_owned(),
                kind: "Cluster".to_owned(),
                plural: "clusters".to_owned(),
            };
            Ok(Api::namespaced_with(client, &namespace, &kind))
        });
        made.await.map_err(|error| failed("let itself be found", error))
    }

    async fn get(&self) -> Result<DynamicObject, ControlError> {
        let found = self.clusters().await?.get(&self.own).await;
        found.map_err(|error| failed("tell of the Cluster", error))
    }

    async fn patch(&self, change: Value) -> Result<(), ControlError> {
        let clusters = self.clusters().await?;
        let change = Patch::Merge(change);
        let patched = clusters.patch(&self.own, &PatchParams::default(), &change).await;
        patched.map(drop).map_err(|error| failed("change the Cluster", error))
    }

    async fn demote(&self, to: &str) -> Result<Option<String>, ControlError> {
        let found = self.get().await?;
        // An empty one stands for none, and would make a failover of the promotion.
        let token = text(&found, "/status/demotionToken").filter(|token| !token.is_empty());
        if text(&found, "/spec/replica/primary") == Some(to) {
            let before = found.metadata.annotations.as_ref().and_then(|all| all.get(TOKEN_BEFORE));
            let before = before.map(String::as_str);
            return Ok(token.filter(|token| Some(*token) != before).map(str::to_owned));
        }
        self.patch(json!({
            "metadata": { "annotations": { TOKEN_BEFORE: token } },
            "spec": { "replica": { "primary": to, "source": to, "promotionToken": null } },
        }))
        .await?;
        Ok(None)
    }

    async fn describe(&self) -> Result<Told, ControlError> {
        let found = self.get().await?;
        let own = text(&found, "/spec/replica/self").unwrap_or(&self.own);
        let replica = text(&found, "/spec/replica/primary").is_some_and(|primary| primary != own);
        let source = text(&found, "/spec/replica/source").filter(|_| replica);
        let annotations = found.metadata.annotations.as_ref();
        let from = annotations.and_then(|all| all.get(PROMOTED_FROM)?.parse().ok());
        Ok(Told {
            follows: source.map(str::to_owned),
            receiving: None,
            promoted_from: from,
            busy: None,
        })
    }
}

/// At a place of the object (RFC 6901).
fn text<'a>(cluster: &'a DynamicObject, place: &str) -> Option<&'a str> {
    cluster.data.pointer(place)?.as_str()
}

fn failed(what: &'static str, error: kube::Error) -> ControlError {
    ControlError::Platform { platform: Platform::CloudNativePg, what, source: Box::new(error) }
}

impl Managing for CloudNativePg {
    const PLATFORM: Platform = Platform::CloudNativePg;
    const NOT_REMADE: &'static str = "a Cluster that has left the primary's history is made anew \
        (docs/RUNBOOK.md, \"The database is run by a platform\")";

    fn told(&self) -> Acting<'_, Told> {
        Box::pin(self.describe())
    }

    fn promote<'a>(&'a self, how: &'a Promotion, from: Bookmark) -> Acting<'a, ()> {
        Box::pin(self.patch(json!({
            "metadata": { "annotations": { PROMOTED_FROM: from.to_string() } },
            // Both at once: without the token it would be a failover.
            "spec": { "replica": { "primary": self.own, "promotionToken": how.token } },
        })))
    }

    fn hand_over<'a>(&'a self, to: &'a str) -> Acting<'a, Option<String>> {
        Box::pin(self.demote(to))
    }

    fn follow<'a>(&'a self, name: &'a str) -> Acting<'a, ()> {
        // A token that a move left, which came to nothing, is refused on a replica.
        let change = json!({ "primary": name, "source": name, "promotionToken": null });
        Box::pin(self.patch(json!({ "spec": { "replica": change } })))
    }
}
