//! Who Postgres runs as, and where its data can then be.

use super::layout::{Layout, make_dir};
use anyhow::{Context as _, bail};
use nix::unistd::{Gid, Uid, User};
use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown, symlink},
    path::{Path, PathBuf},
};
use tokio::process::Command;

/// The unprivileged user of a laboratory that root runs: Postgres refuses to be root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// `None` when this is not root: then Postgres runs as who we are.
    ///
    /// # Errors
    /// When root has no unprivileged user to offer.
    pub fn choose() -> anyhow::Result<Option<Self>> {
        if !Uid::effective().is_root() {
            return Ok(None);
        }
        for name in ["postgres", "nobody"] {
            if let Some(user) = User::from_name(name)? {
                return Ok(Some(Self { uid: user.uid, gid: user.gid }));
            }
        }
        bail!(
            "Postgres does not run as root, and there is no user `postgres` or `nobody` to run it"
        )
    }

    /// Lets `command` run as this user.
    pub fn apply(account: Option<Self>, command: &mut Command) {
        if let Some(Self { uid, gid }) = account {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
    }

    /// Gives the file to this user.
    pub fn give(account: Option<Self>, path: &Path) -> io::Result<()> {
        match account {
            Some(Self { uid, gid }) => chown(path, Some(uid.as_raw()), Some(gid.as_raw())),
            None => Ok(()),
        }
    }

    /// Whether it can reach what is in `dir`, by the permission bits of it and all above it.
    fn reaches(self, dir: &Path) -> bool {
        dir.ancestors().all(|dir| {
            fs::metadata(dir).is_ok_and(|found| {
                let bit = if found.uid() == self.uid.as_raw() {
                    0o100
                } else if found.gid() == self.gid.as_raw() {
                    0o010
                } else {
                    0o001
                };
                found.mode() & bit != 0
            })
        })
    }
}

/// Makes the laboratory's data directory, below itself or where `account` can reach it, and
/// returns its real path.
///
/// # Errors
/// When there is no such place.
pub fn place_data(layout: &Layout, account: Option<Account>) -> anyhow::Result<PathBuf> {
    let data = layout.data();
    let reached = |dir: &Path| account.is_none_or(|account| account.reaches(dir));
    if let Some(kept) = layout.real_data()? {
        if !reached(&kept) {
            bail!("Postgres' user cannot reach {}: `godwit lab down --purge`", kept.display());
        }
        return Ok(kept);
    }
    if reached(layout.root()) {
        make_dir(&data, 0o711)?;
        return Ok(fs::canonicalize(&data)?);
    }
    let Some(elsewhere) = layout.elsewhere().find(|place| place.parent().is_some_and(reached))
    else {
        bail!("Postgres' user can reach neither {}, /var/tmp nor /tmp", layout.root().display());
    };
    // A link whose target is gone: someone cleaned up there.
    let _ = fs::remove_file(&data);
    match fs::DirBuilder::new().mode(0o711).create(&elsewhere) {
        // Left by a start that came no further; whose it is, the link's reader looks at.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => made.with_context(|| elsewhere.display().to_string())?,
    }
    symlink(&elsewhere, &data)?;
    layout.real_data()?.context("the data directory went as it was made")
}

/// Removes all that a laboratory kept, and its directory unless there is something else in it.
///
/// # Errors
/// When there is no laboratory there, or something cannot be removed.
pub fn purge(layout: &Layout) -> io::Result<()> {
    if !layout.root().exists() {
        return Ok(());
    }
    if !layout.holds_one() {
        let root = layout.root().display();
        return Err(io::Error::other(format!("there is no laboratory in {root}")));
    }
    let absent_is_well = |done: io::Result<()>| match done {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    };
    // Where someone has put a link of their own, the link goes and what it leads to stays.
    if let Ok(Some(kept)) = layout.real_data() {
        absent_is_well(fs::remove_dir_all(kept))?;
    }
    for path in layout.all() {
        let directory = fs::symlink_metadata(&path).is_ok_and(|facts| facts.is_dir());
        let removed = if directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        absent_is_well(removed)?;
    }
    match fs::remove_dir(layout.root()) {
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => absent_is_well(done),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_closed_directory_above_keeps_another_user_out() {
        let dir = tempfile::tempdir().unwrap();
        let inside = dir.path().join("inside");
        fs::create_dir(&inside).unwrap();
        let stranger = Account { uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_321) };
        for (mode, reached) in [(0o700, false), (0o711, true), (0o755, true), (0o770, false)] {
            fs::set_permissions(dir.path(), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(stranger.reaches(&inside), reached, "{mode:o}");
        }
    }

    #[test]
    fn data_stays_in_the_laboratory_when_it_can_and_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("lab");
        make_dir(&root, 0o700).unwrap();
        let layout = Layout::make(&root).unwrap();
        assert_eq!(place_data(&layout, None).unwrap(), layout.data());
        // Its directory is closed to a stranger, so that it is kept elsewhere.
        fs::remove_dir(layout.data()).unwrap();
        let stranger = Account { uid: Uid::from_raw(54_321), gid: Gid::from_raw(54_321) };
        let kept = place_data(&layout, Some(stranger)).unwrap();
        assert!(!kept.starts_with(&root) && fs::canonicalize(layout.data()).unwrap() == kept);
        assert_eq!(place_data(&layout, Some(stranger)).unwrap(), kept);
        purge(&layout).unwrap();
        assert!(!kept.exists() && !root.exists());
        purge(&layout).unwrap();
    }

    #[test]
    fn what_is_not_the_laboratorys_stays() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::make(dir.path()).unwrap();
        fs::write(layout.lock(), "1").unwrap();
        let foreign = dir.path().join("thesis.txt");
        fs::write(&foreign, "years").unwrap();
        purge(&layout).unwrap();
        assert!(foreign.exists() && !layout.lock().exists() && !layout.logs().exists());
    }

    /// What versions without the marker left when they went down.
    fn unmarked(root: &Path) -> Layout {
        for dir in ["data/us-east-1/postgres", "logs", "regions/us-east-1", "secrets"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        for file in ["lock", "logs/us-east-1-api.log.before", "regions/us-east-1/godwit.toml"] {
            fs::write(root.join(file), "").unwrap();
        }
        fs::write(root.join("secrets/secrets.json"), "{}").unwrap();
        Layout::new(root).unwrap()
    }

    #[test]
    fn a_directory_with_something_in_it_is_neither_taken_nor_purged() {
        let dir = tempfile::tempdir().unwrap();
        // All the names, but not what a laboratory puts there.
        let precious = dir.path().join("data/photos/1.jpeg");
        fs::create_dir_all(precious.parent().unwrap()).unwrap();
        fs::write(&precious, "years").unwrap();
        for at in ["logs", "regions", "secrets"] {
            fs::create_dir(dir.path().join(at)).unwrap();
        }
        fs::write(dir.path().join("lock"), "yarn").unwrap();
        let error = Layout::make(dir.path()).unwrap_err();
        assert!(error.is::<crate::lab::NotOurs>(), "{error}");
        let layout = Layout::new(dir.path()).unwrap();
        assert!(!layout.holds_one() && purge(&layout).is_err());
        assert!(precious.exists() && fs::read(layout.lock()).unwrap() == b"yarn");
    }

    #[test]
    fn a_laboratory_from_before_the_marker_is_known_by_what_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let layout = unmarked(&dir.path().join("lab"));
        assert!(layout.holds_one());
        Layout::make(layout.root()).unwrap();
        // With the marker, what comes beside it changes nothing.
        fs::write(layout.root().join("thesis.txt"), "years").unwrap();
        assert!(layout.holds_one());
        for foreign in ["thesis.txt", "data/photos", "logs/access.txt", "regions/index.html"] {
            let dir = tempfile::tempdir().unwrap();
            let layout = unmarked(dir.path());
            fs::write(layout.root().join(foreign), "years").unwrap();
            assert!(Layout::make(dir.path()).is_err() && purge(&layout).is_err(), "{foreign}");
        }
    }

    #[test]
    fn a_link_that_the_laboratory_did_not_make_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let photos = dir.path().join("photos");
        fs::create_dir(&photos).unwrap();
        fs::write(photos.join("1.jpeg"), "years").unwrap();
        let layout = Layout::make(&dir.path().join("lab")).unwrap();
        symlink(&photos, layout.data()).unwrap();
        assert!(place_data(&layout, None).is_err());
        symlink(&photos, layout.regions()).unwrap();
        assert!(Layout::make(layout.root()).is_err());
        purge(&layout).unwrap();
        assert!(photos.join("1.jpeg").exists() && !layout.root().exists());
    }
}
