-- What has changed since a transaction.
CREATE INDEX user_session_changed_idx ON user_session (changed, id) WHERE changed IS NOT NULL;
