//! Users: by themselves, and by their administrators.

use super::{CHANGED, CREATED, LISTED, READ_ITEM, Shown, WRITTEN, body};
use crate::http::{
    openapi::answers::{empty_answer, json_answer},
    problem::Kind,
};
use serde_json::{Value, json};

/// What a handler that changes a user in a version that the caller knows refuses with.
const OF_CHANGES: &[Kind] = &[
    Kind::NotFound,
    Kind::VersionConflict,
    Kind::LastAdmin,
    Kind::UnsupportedMediaType,
    Kind::Validation,
    Kind::PreconditionRequired,
];

const REGISTERED: &[&str] = &["Godwit-Bookmark", "Idempotency-Key", "Idempotency-Replayed", "ETag"];

/// A link from an answer that is a user to the operations on that user.
fn links() -> Value {
    let id = json!({ "id": "$response.body#/id" });
    let with_tag =
        json!({ "id": "$response.body#/id", "header.If-Match": "$response.header.ETag" });
    json!({
        "read": { "operationId": "readUser", "parameters": id },
        "change": { "operationId": "changeUser", "parameters": with_tag },
        "suspend": { "operationId": "suspendUser", "parameters": id },
        "resume": { "operationId": "resumeUser", "parameters": id },
        "setPassword": { "operationId": "setUserPassword", "parameters": id },
        "delete": { "operationId": "deleteUser", "parameters": with_tag },
    })
}

pub fn register() -> Shown {
    let example = json!({
        "tenant": "demo", "email": "ada@example.com", "name": "Ada Lovelace",
        "password": "six-otters-and-a-kettle",
    });
    Shown {
        id: "register",
        tag: "account",
        summary: "Make an account of one's own",
        description: "In the tenant of that name, with the role that the settings give. Takes no \
            credential; each address may try so often. A 403 says that the administrators make \
            the accounts here. A repetition with the same `Idempotency-Key` is one of the same \
            e-mail address; its password is not compared.",
        parameters: &[],
        body: Some(body(&["application/json"], "Registration", &example)),
        answers: vec![(201, json_answer("Registered", "User", REGISTERED, None))],
        problems: &[Kind::UnsupportedMediaType, Kind::Validation],
    }
}

pub fn list() -> Shown {
    Shown {
        id: "listUsers",
        tag: "admin",
        summary: "List the tenant's users",
        description: "In the order of their making, suspended ones too. With `email`, at most the \
            one who has it, in whichever spelling.",
        parameters: &["limit", "user_cursor", "user_email"],
        body: None,
        answers: vec![(200, json_answer("A page of users", "UserPage", LISTED, None))],
        problems: &[Kind::Validation],
    }
}

pub fn create() -> Shown {
    let example = json!({
        "email": "grace@example.com", "name": "Grace Hopper", "role": "editor",
        "password": "nine-moths-in-a-relay",
    });
    let mut made = json_answer("Created", "User", CREATED, None);
    made["links"] = links();
    Shown {
        id: "createUser",
        tag: "admin",
        summary: "Make a user",
        description: "Without a password nobody can sign in as them until one is set. A role that \
            may do more than the credential is refused.",
        parameters: &[],
        body: Some(body(&["application/json"], "UserWanted", &example)),
        answers: vec![(201, made)],
        problems: &[Kind::UnsupportedMediaType, Kind::Validation],
    }
}

pub fn read() -> Shown {
    Shown {
        id: "readUser",
        tag: "admin",
        summary: "Read a user",
        description: "",
        parameters: &["user_id", "if_none_match"],
        body: None,
        answers: vec![
            (200, json_answer("The user", "User", READ_ITEM, None)),
            (304, empty_answer("The version at hand is current", &["Godwit-Bookmark", "ETag"])),
        ],
        problems: &[Kind::NotFound],
    }
}

pub fn change() -> Shown {
    let types = ["application/merge-patch+json", "application/json"];
    let example = json!({ "role": "admin" });
    Shown {
        id: "changeUser",
        tag: "admin",
        summary: "Change a user's name, role or e-mail address",
        description: "What is not named stays. The tenant's last administrator who is not \
            suspended stays one. A 412 shows in `current` what is there.",
        parameters: &["user_id", "if_match"],
        body: Some(body(&types, "UserChange", &example)),
        answers: vec![(200, json_answer("Changed", "User", CHANGED, None))],
        problems: OF_CHANGES,
    }
}

pub fn suspend() -> Shown {
    Shown {
        id: "suspendUser",
        tag: "admin",
        summary: "Keep a user out",
        description: "Until they are resumed; it is answered once another region has it too. \
            Suspending twice is suspending once. Not the tenant's last administrator. `If-Match` \
            is honoured where it is sent.",
        parameters: &["user_id", "if_match_optional"],
        body: None,
        answers: vec![(200, json_answer("Suspended", "User", CHANGED, None))],
        problems: &[Kind::NotFound, Kind::VersionConflict, Kind::LastAdmin],
    }
}

pub fn resume() -> Shown {
    Shown {
        id: "resumeUser",
        tag: "admin",
        summary: "End a user's suspension",
        description: "Of who is not suspended it changes nothing. `If-Match` is honoured where it \
            is sent.",
        parameters: &["user_id", "if_match_optional"],
        body: None,
        answers: vec![(200, json_answer("Resumed", "User", CHANGED, None))],
        problems: &[Kind::NotFound, Kind::VersionConflict],
    }
}

pub fn set_password() -> Shown {
    let example = json!({ "password": "seven-teapots-at-noon" });
    Shown {
        id: "setUserPassword",
        tag: "admin",
        summary: "Give a user another password",
        description: "Of a user who may do no more than the credential. A repetition with the same \
            `Idempotency-Key` is answered as the first was: passwords are not compared. `If-Match` \
            is honoured where it is sent.",
        parameters: &["user_id", "if_match_optional"],
        body: Some(body(&["application/json"], "PasswordWanted", &example)),
        answers: vec![(200, json_answer("Set", "User", CHANGED, None))],
        problems: &[
            Kind::NotFound,
            Kind::VersionConflict,
            Kind::UnsupportedMediaType,
            Kind::Validation,
        ],
    }
}

pub fn delete() -> Shown {
    Shown {
        id: "deleteUser",
        tag: "admin",
        summary: "Delete a user",
        description: "All that is personal of them is erased from their row for good, and their \
            address is free; their id stays taken. Not the tenant's last administrator. A 412 shows \
            in `current` what is there.",
        parameters: &["user_id", "if_match"],
        body: None,
        answers: vec![(204, empty_answer("Deleted", WRITTEN))],
        problems: &[
            Kind::NotFound,
            Kind::VersionConflict,
            Kind::LastAdmin,
            Kind::PreconditionRequired,
        ],
    }
}
