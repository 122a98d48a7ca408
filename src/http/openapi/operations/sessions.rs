//! Signing in and out, one's own account, and where somebody is signed in.

use super::{CHANGED, LISTED, READ_ITEM, Shown, WRITTEN, body};
use crate::http::{
    openapi::answers::{empty_answer, json_answer},
    problem::Kind,
};
use serde_json::json;

const PAGE: &str = "A page of sessions";

pub fn sign_in() -> Shown {
    let example = json!({
        "tenant": "demo", "email": "admin@example.com", "password": "six-otters-and-a-kettle",
    });
    Shown {
        id: "signIn",
        tag: "account",
        summary: "Sign in",
        description: "In whichever region is near: the session is known in all of them at once. Sets \
            the cookie `__Host-godwit_session`; the token is for clients without cookies, as \
            `Authorization: Bearer`. A 401 does not say whether the address or the password is wrong; \
            a 403 says that the account is suspended.",
        parameters: &[],
        body: Some(body(&["application/json"], "SignIn", &example)),
        answers: vec![(201, json_answer("Signed in", "SessionBegun", &["Cache-Control"], None))],
        problems: &[Kind::Unauthorized, Kind::UnsupportedMediaType, Kind::Validation],
    }
}

pub fn sign_out() -> Shown {
    Shown {
        id: "signOut",
        tag: "account",
        summary: "Sign out",
        description: "Ends the session that asks, in every region within the replication lag and a \
            second. Goes on while there is no primary. A browser goes on with another of its accounts.",
        parameters: &[],
        body: None,
        answers: vec![(204, empty_answer("Signed out", &[]))],
        problems: &[],
    }
}

pub fn accounts() -> Shown {
    Shown {
        id: "listAccounts",
        tag: "account",
        summary: "List the accounts a browser is signed in to",
        description: "Up to three, of the cookie `__Host-godwit_session`: signing in adds one, and ends the \
            one that was used longest ago if there are too many. `active` is the one that asks. By a \
            token there is no other.",
        parameters: &[],
        body: None,
        answers: vec![(200, json_answer("The accounts", "Accounts", &["Cache-Control"], None))],
        problems: &[],
    }
}

pub fn switch() -> Shown {
    let example = json!({ "session": "01981c5e-7c1e-7d3f-9c55-2f0e8a3b6d10" });
    Shown {
        id: "switchAccount",
        tag: "account",
        summary: "Go on as another account of the browser",
        description: "One of those that `GET /v1/session` lists, by its session.",
        parameters: &[],
        body: Some(body(&["application/json"], "AccountSwitch", &example)),
        answers: vec![(204, empty_answer("That account is the active one", &[]))],
        problems: &[Kind::NotFound, Kind::UnsupportedMediaType, Kind::Validation],
    }
}

pub fn read_account() -> Shown {
    Shown {
        id: "readAccount",
        tag: "account",
        summary: "Read one's own account",
        description: "",
        parameters: &["if_none_match"],
        body: None,
        answers: vec![
            (200, json_answer("Who is signed in", "User", READ_ITEM, None)),
            (304, empty_answer("The version at hand is current", &["Godwit-Bookmark", "ETag"])),
        ],
        problems: &[Kind::NotFound],
    }
}

pub fn change_account() -> Shown {
    let types = ["application/merge-patch+json", "application/json"];
    Shown {
        id: "changeAccount",
        tag: "account",
        summary: "Change one's own name",
        description: "A 412 shows in `current` what is there.",
        parameters: &["if_match"],
        body: Some(body(&types, "AccountChange", &json!({ "name": "Ada King" }))),
        answers: vec![(200, json_answer("Changed", "User", CHANGED, None))],
        problems: &[
            Kind::NotFound,
            Kind::VersionConflict,
            Kind::UnsupportedMediaType,
            Kind::Validation,
            Kind::PreconditionRequired,
        ],
    }
}

pub fn set_password() -> Shown {
    let example = json!({
        "current_password": "six-otters-and-a-kettle", "password": "nine-moths-in-a-relay",
    });
    Shown {
        id: "setPassword",
        tag: "account",
        summary: "Change one's own password",
        description: "Ends all one's other sessions, in every region. A repetition with the same \
            `Idempotency-Key` is answered as the first was: passwords are not compared.",
        parameters: &[],
        body: Some(body(&["application/json"], "PasswordChange", &example)),
        answers: vec![(200, json_answer("Changed", "User", CHANGED, None))],
        problems: &[
            Kind::NotFound,
            Kind::VersionConflict,
            Kind::UnsupportedMediaType,
            Kind::Validation,
        ],
    }
}

pub fn list() -> Shown {
    Shown {
        id: "listSessions",
        tag: "account",
        summary: "List where one is signed in",
        description: "On every device and in every region, the newest first. `current` is the session \
            that asks. When a session was last seen is told with a delay of up to an hour.",
        parameters: &["limit", "session_cursor"],
        body: None,
        answers: vec![(200, json_answer(PAGE, "SessionPage", LISTED, None))],
        problems: &[Kind::Validation],
    }
}

pub fn end() -> Shown {
    Shown {
        id: "endSession",
        tag: "account",
        summary: "End one of one's sessions",
        description: "In every region within the replication lag and a second.",
        parameters: &["session_id"],
        body: None,
        answers: vec![(204, empty_answer("Ended", WRITTEN))],
        problems: &[Kind::NotFound],
    }
}

pub fn end_others() -> Shown {
    Shown {
        id: "endOtherSessions",
        tag: "account",
        summary: "End all one's sessions but this",
        description: "Those too that the directory has not heard of yet.",
        parameters: &[],
        body: None,
        answers: vec![(204, empty_answer("Ended", WRITTEN))],
        problems: &[Kind::NotFound],
    }
}

pub fn list_of_user() -> Shown {
    Shown {
        id: "listUserSessions",
        tag: "admin",
        summary: "List where a user is signed in",
        description: "As they see it themselves.",
        parameters: &["user_id", "limit", "session_cursor"],
        body: None,
        answers: vec![(200, json_answer(PAGE, "SessionPage", LISTED, None))],
        problems: &[Kind::NotFound, Kind::Validation],
    }
}

pub fn end_of_user() -> Shown {
    Shown {
        id: "endUserSession",
        tag: "admin",
        summary: "End one of a user's sessions",
        description: "",
        parameters: &["user_id", "user_session_id"],
        body: None,
        answers: vec![(204, empty_answer("Ended", WRITTEN))],
        problems: &[Kind::NotFound],
    }
}

pub fn end_all_of_user() -> Shown {
    Shown {
        id: "endUserSessions",
        tag: "admin",
        summary: "Sign a user out everywhere",
        description: "They can sign in again: to keep them out, suspend them.",
        parameters: &["user_id"],
        body: None,
        answers: vec![(204, empty_answer("Ended", WRITTEN))],
        problems: &[Kind::NotFound],
    }
}
