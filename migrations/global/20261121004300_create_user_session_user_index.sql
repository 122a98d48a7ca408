-- A person's sessions, the newest first; and whether they ever signed in from an address.
CREATE INDEX user_session_user_idx ON user_session (user_id, id DESC);
