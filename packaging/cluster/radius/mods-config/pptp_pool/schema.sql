-- The pool: a row an address. `fill-pool` writes the rows. For SQLite and PostgreSQL.
CREATE TABLE pptp_pool (
    framedipaddress VARCHAR(15) NOT NULL PRIMARY KEY,
    pool_name       VARCHAR(30) NOT NULL,
    -- Until when it is taken, in seconds since 1970.
    expiry_time     BIGINT NOT NULL DEFAULT 0,
    -- Who has it, or had it last: the node, its name for the session, the user and where from.
    nas             VARCHAR(253) NOT NULL DEFAULT '',
    session_id      VARCHAR(253) NOT NULL DEFAULT '',
    username        VARCHAR(253) NOT NULL DEFAULT '',
    calling         VARCHAR(253) NOT NULL DEFAULT ''
);
CREATE INDEX pptp_pool_free ON pptp_pool (pool_name, expiry_time);
CREATE INDEX pptp_pool_user ON pptp_pool (pool_name, username);
CREATE INDEX pptp_pool_session ON pptp_pool (nas, session_id);
