//! `lab.json`: what a running laboratory tells everyone else.

use super::{Layout, dns::DnsFacts};
use crate::vocab::{Epoch, Region, TenantId};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::Path};

/// The facts, as `shared/contract.md` names them. Holds passwords and a key: mode 0600.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabFile {
    pub epoch: Epoch,
    pub primary: Region,
    pub durability: String,
    pub wan: String,
    pub tenant: Option<TenantFacts>,
    pub regions: BTreeMap<Region, RegionFacts>,
    /// Where somebody asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsFacts>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TenantFacts {
    pub id: TenantId,
    pub name: String,
    pub api_key: String,
    /// Absent where an earlier version made the tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<AdminFacts>,
}

/// The tenant's administrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminFacts {
    pub email: String,
    pub password: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegionFacts {
    pub public: String,
    pub internal: String,
    pub ops: String,
    /// As the superuser.
    pub global_db: String,
    pub redis: String,
    pub pids: Pids,
    /// The second and further API processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<MoreApi>,
}

/// Of what runs; a process that has ended is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pids {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoreApi {
    pub public: String,
    pub internal: String,
    pub ops: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
}

impl LabFile {
    /// Reads a laboratory's facts.
    ///
    /// # Errors
    /// When there is none in `dir`, or it is of another version.
    pub fn read(dir: &Path) -> anyhow::Result<Self> {
        let path = Layout::new(dir)?.lab_file();
        let text = std::fs::read(&path).with_context(|| {
            format!("no laboratory in {}: start one with `godwit lab up`", dir.display())
        })?;
        serde_json::from_slice(&text).with_context(|| path.display().to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_contracts_example_with_what_later_versions_add() {
        let text = r#"{"epoch": 1, "primary": "us-east-1", "durability": "async", "wan": "real",
            "tenant": {"id": "0193a0de-0000-7000-8000-000000000000", "name": "demo",
                       "api_key": "gw_lab_x", "admin": {"email": "a", "password": "b"}},
            "regions": {"us-east-1": {"public": "http://127.0.0.1:8081",
                "internal": "http://127.0.0.1:9081", "ops": "http://127.0.0.1:9181",
                "global_db": "postgres://g", "regional_db": "postgres://r", "redis": "redis://x",
                "pids": {"api": 1, "postgres": 2, "regional": 3, "redis": 4}}}}"#;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lab.json"), text).unwrap();
        let file = LabFile::read(dir.path()).unwrap();
        assert_eq!(file.regions[&file.primary].pids.postgres, Some(2));
        let tenant = file.tenant.unwrap();
        assert_eq!(
            (tenant.api_key.as_str(), tenant.admin.unwrap().email.as_str()),
            ("gw_lab_x", "a")
        );
    }

    #[test]
    fn says_how_to_start_one_where_there_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let error = LabFile::read(dir.path()).unwrap_err();
        assert!(error.to_string().contains("godwit lab up"), "{error}");
    }
}
