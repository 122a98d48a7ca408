//! Whose rows a query may touch.

use crate::vocab::TenantId;

/// One tenant's rows. Minted only where storage has looked up a credential
/// ([`super::global::api_keys::KeyRow::scope`], [`super::global::sessions::Live::scope`]), so that no query
/// can be asked for a tenant that the caller has not proven to belong to; or, for who wants an account and nothing else, the tenant that
/// they name ([`super::global::tenants::TenantRow::registration_scope`]).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantScope {
    tenant: TenantId,
}

impl TenantScope {
    pub(super) const fn new(tenant: TenantId) -> Self {
        Self { tenant }
    }

    #[must_use]
    pub const fn tenant(&self) -> TenantId {
        self.tenant
    }
}
