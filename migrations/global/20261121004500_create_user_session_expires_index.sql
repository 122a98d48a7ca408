-- What can be forgotten.
CREATE INDEX user_session_expires_idx ON user_session (expires_at);
