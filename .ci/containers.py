"""compose.yaml: what all regions have alike once, and what differs from region to region for each."""

COMPOSE = """\
# {made}
#
# The regions as containers, for people with Docker (Compose 2.23.1 or later) who want no laboratory: every region's Postgres,
# Redis and Godwit, with a network of its own, and one between the regions. There is no distance between them, as `godwit lab` has.
#
#   docker build --tag godwit .
#   mkdir -p .godwit                                                   # once: passwords and keys
#   (umask 077; mkdir .godwit/compose; cd .godwit/compose
#    for name in superuser owner app reader control replication redis envelope; do openssl rand -hex 32 >$name; done
#    for role in owner app reader control; do echo "postgres://godwit_$role:$(cat $role)@postgres/godwit" >$role-url; done
#    echo "redis://:$(cat redis)@redis" >redis-url
#    echo "*:*:*:godwit_replication:$(cat replication)" >pgpass
#    echo {primary} >primary     # of whose database a new one is a copy
#    chmod 444 *)     # containers have users of their own; the directory keeps them from all others
#   docker compose up --detach
#   docker compose exec godwit-{primary} /usr/local/bin/godwit status --config /etc/godwit/godwit.toml
#   ... /usr/local/bin/godwit tenant create demo --config /etc/godwit/godwit.toml
#   ... /usr/local/bin/godwit key create --tenant demo --name first --scopes read,write --days 30 --config /etc/godwit/godwit.toml
#
# The API is at
{urls}
# with metrics and probes at {ops}.
#
# `godwit switchover` and `promote` move the primary. No container may start and stop another, so there is no agent, and what it would
# do for the old primary is typed: `switchover` ends, the primary moved, with `setting failover.agent is missing`, and the old one's
# database is made anew as a copy of the new one's (what it alone had is gone with it). Where the primary is by then is kept in a file, and not
# in the environment: what is changed there is nothing that a later `docker compose up` would restart everybody for, or forget.
#
#   (cd .godwit/compose; rm -f primary; echo WHERE-IT-IS >primary; chmod 444 primary)
#   docker compose rm --stop --force postgres-REGION && docker volume rm godwit_postgres-REGION
#   docker compose up --detach --no-deps postgres-REGION
name: godwit

x-hardened: &hardened
  # Not `read_only`: Compose copies the texts of `configs` into a container, and refuses to where its root is (docker/compose#12031).
  cap_drop: [ALL]
  security_opt: [no-new-privileges:true]
  restart: unless-stopped

x-postgres: &postgres
  <<: *hardened
  image: postgres:15-bookworm
  user: postgres
  entrypoint: [sh, /usr/local/bin/start-postgres]
  tmpfs: ["/tmp", "/run/postgresql:mode=1777"]
  shm_size: 128m
  # A fast shutdown: it waits for no client.
  stop_signal: SIGINT
  stop_grace_period: 60s
  configs:
    - {{source: start-postgres, target: /usr/local/bin/start-postgres}}
    - {{source: roles, target: /docker-entrypoint-initdb.d/roles.sh}}
    - {{source: hba, target: /etc/postgresql/pg_hba.conf}}
  secrets: [superuser, owner, app, reader, control, replication, pgpass, primary]
  healthcheck:
    # Over TCP: while the image makes a database it listens on a socket alone.
    test: [CMD, pg_isready, --quiet, --host=127.0.0.1, --username=godwit, --dbname=godwit]
    interval: 2s
    timeout: 2s
    retries: 5
    start_period: 60s
  deploy: {{resources: {{limits: {{cpus: "1", memory: 512M}}}}}}

x-redis: &redis
  <<: *hardened
  image: redis:7.4-bookworm
  user: redis
  # Sessions and what is owed of them are kept; nothing is evicted, for the note of the lease has no expiry.
  entrypoint: [sh, -euc]
  command:
    - |
      umask 077
      {{ echo "requirepass $$(cat /run/secrets/redis)"; cat /etc/redis.conf; }} >/tmp/redis.conf
      exec redis-server /tmp/redis.conf
  tmpfs: [/tmp]
  configs: [{{source: redis, target: /etc/redis.conf}}]
  secrets: [redis]
  healthcheck:
    test: [CMD-SHELL, 'REDISCLI_AUTH=$$(cat /run/secrets/redis) redis-cli ping | grep -qx PONG']
    interval: 2s
    timeout: 2s
    retries: 5
  deploy: {{resources: {{limits: {{cpus: "0.5", memory: 384M}}}}}}

x-godwit: &godwit
  <<: *hardened
  image: godwit
  pull_policy: never
  command: [serve, --config, /etc/godwit/godwit.toml]
  # `server.drain_seconds_max` (20), and room.
  stop_grace_period: 30s
  healthcheck:
    test: [CMD, /usr/local/bin/godwit, health, --probe, liveness, --config, /etc/godwit/godwit.toml]
    interval: 10s
    timeout: 6s
    start_period: 30s
  configs: [{{source: godwit, target: /etc/godwit/godwit.toml}}]
  secrets: [app-url, reader-url, control-url, redis-url, envelope]
  deploy: {{resources: {{limits: {{cpus: "1", memory: 512M}}}}}}

x-settings: &settings
  GODWIT__DATABASE__URL_FILE: /run/secrets/app-url
  GODWIT__DATABASE__READ_URL_FILE: /run/secrets/reader-url
  GODWIT__DATABASE__CONTROL_URL_FILE: /run/secrets/control-url
  GODWIT__REDIS__URL_FILE: /run/secrets/redis-url
  GODWIT__CLUSTER__ENVELOPE_KEYS__FIRST__SECRET_FILE: /run/secrets/envelope

services:
  # Once, where the first database is: the schema, which every region gets with the log. On a replica it does nothing.
  migrate:
    <<: *godwit
    restart: "no"
    command: [migrate, --config, /etc/godwit/godwit.toml]
    healthcheck: {{disable: true}}
    environment: {{<<: *settings, GODWIT__REGION: {primary}, GODWIT__DATABASE__OWNER_URL_FILE: /run/secrets/owner-url}}
    secrets: [app-url, reader-url, control-url, redis-url, envelope, owner-url]
    depends_on:
      postgres-{primary}: {{condition: service_healthy}}
    networks: [{primary}]
  # What needs the schema's roles, and a superuser (docs/RUNBOOK.md, "Roles and grants").
  grants:
    <<: *postgres
    restart: "no"
    entrypoint: [sh, -euc]
    command:
      - |
        export PGPASSWORD="$$(cat /run/secrets/superuser)"
        there() {{ psql --host=postgres --username=godwit --no-psqlrc --quiet --tuples-only --no-align "$$@" godwit; }}
        if [ "$$(there --command='SELECT pg_is_in_recovery()')" = f ]; then there --set=ON_ERROR_STOP=1 --file=/etc/grants.sql; fi
    configs: [{{source: grants, target: /etc/grants.sql}}]
    secrets: [superuser]
    healthcheck: {{disable: true}}
    depends_on:
      migrate: {{condition: service_completed_successfully}}
    networks: [{primary}]
{services}
networks:
{networks}
  # Replication, and what regions send each other.
  between: {{}}

volumes:
{volumes}

secrets:
{secrets}

configs:
  godwit:
    content: |
      region = "{primary}" # GODWIT__REGION names each container's own.

      [server]
      public_addr = "0.0.0.0:8081"
      internal_addr = "0.0.0.0:9081"
      ops_addr = "0.0.0.0:9181"

      [cluster]
      envelope_key_current = "first"
{settings}
  # A new database is a copy of the primary's, but the first of all.
  start-postgres:
    content: |
      set -eu
      umask 077
      # libpq demands that nobody else can read it.
      install -m 600 /run/secrets/pgpass /tmp/pgpass
      primary="$$(cat /run/secrets/primary)"
      if [ ! -s "$$PGDATA/PG_VERSION" ] && [ "$$REGION" = "$$primary" ]; then
          # Empty it would be a second primary, beside those that have the data.
          for other in {names}; do
              if [ "$$other" != "$$REGION" ] && pg_isready --quiet --host="postgres-$$other" --timeout=2; then
                  echo "postgres-$$other has a database already: where is the primary? (.godwit/compose/primary)" >&2
                  exit 1
              fi
          done
      elif [ ! -s "$$PGDATA/PG_VERSION" ]; then
          upstream="host=postgres-$$primary port=5432 user=godwit_replication passfile=/tmp/pgpass dbname=godwit"
          until pg_basebackup --dbname="$$upstream" --no-password --wal-method=stream --checkpoint=fast --pgdata="$$PGDATA"; do
              find "$$PGDATA" -mindepth 1 -delete
              sleep 2
          done
          printf "primary_conninfo = '%s application_name=%s'\\nprimary_slot_name = '%s'\\n" \\
              "$$upstream" "$$REGION" "$$(echo "$$REGION" | tr - _)" >"$$PGDATA/postgresql.auto.conf"
          touch "$$PGDATA/standby.signal"
          chmod 700 "$$PGDATA"
      fi
      # Each may become the primary, so all are told the same.
      exec docker-entrypoint.sh postgres -c cluster_name="$$REGION" -c hba_file=/etc/postgresql/pg_hba.conf \\
          -c wal_level=replica -c wal_log_hints=on -c hot_standby=on -c hot_standby_feedback=on \\
          -c max_standby_streaming_delay=400ms -c max_wal_senders=20 -c max_replication_slots=20 \\
          -c max_slot_wal_keep_size=1GB -c wal_keep_size=64MB -c max_connections=100
  # As the database is made (docs/RUNBOOK.md, "Roles and grants").
  roles:
    content: |
      psql --set=ON_ERROR_STOP=1 --username="$$POSTGRES_USER" --dbname=postgres --no-psqlrc --quiet \\
          --set=owner="$$(cat /run/secrets/owner)" --set=app="$$(cat /run/secrets/app)" --set=reader="$$(cat /run/secrets/reader)" \\
          --set=control="$$(cat /run/secrets/control)" --set=replication="$$(cat /run/secrets/replication)" <<'SQL'
      CREATE ROLE godwit_owner LOGIN CREATEROLE PASSWORD :'owner';
      CREATE ROLE godwit_app LOGIN PASSWORD :'app';
      CREATE ROLE godwit_reader LOGIN PASSWORD :'reader';
      CREATE ROLE godwit_control LOGIN REPLICATION PASSWORD :'control';
      CREATE ROLE godwit_replication LOGIN REPLICATION PASSWORD :'replication';
      GRANT pg_monitor TO godwit_reader;
      GRANT pg_monitor, pg_signal_backend TO godwit_control;
      GRANT SET, ALTER SYSTEM ON PARAMETER primary_conninfo, primary_slot_name, synchronous_standby_names,
          default_transaction_read_only TO godwit_control;
      GRANT pg_checkpoint TO godwit_replication;
      ALTER DATABASE godwit OWNER TO godwit_owner;
      SQL
  grants:
    content: |
      GRANT godwit_write TO godwit_app;
      GRANT godwit_read TO godwit_reader;
      GRANT godwit_failover TO godwit_control;
      GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO godwit_control;
      GRANT EXECUTE ON FUNCTION pg_ls_dir(text, boolean, boolean), pg_stat_file(text, boolean),
          pg_read_binary_file(text), pg_read_binary_file(text, bigint, bigint, boolean) TO godwit_replication;
  hba:
    content: |
      local all         all                       trust
      host  all         all                all    scram-sha-256
      host  replication godwit_replication all    scram-sha-256
  redis:
    content: |
      appendonly yes
      dir /data
      maxmemory 256mb
      maxmemory-policy noeviction
"""
REGION = """
  postgres-{name}:
    <<: *postgres
    environment:
      REGION: {name}
      POSTGRES_USER: godwit
      POSTGRES_DB: godwit
      POSTGRES_PASSWORD_FILE: /run/secrets/superuser
      POSTGRES_INITDB_ARGS: --data-checksums --auth-host=scram-sha-256
      PGDATA: /var/lib/postgresql/data
    volumes: ["postgres-{name}:/var/lib/postgresql/data"]
    networks:
      {name}: {{aliases: [postgres]}}
      between: {{}}
  redis-{name}:
    <<: *redis
    volumes: ["redis-{name}:/data"]
    networks:
      {name}: {{aliases: [redis]}}
  godwit-{name}:
    <<: *godwit
    environment: {{<<: *settings, GODWIT__REGION: {name}}}
    depends_on:
      grants: {{condition: service_completed_successfully}}
      postgres-{name}: {{condition: service_healthy}}
      redis-{name}: {{condition: service_healthy}}
    ports: ["127.0.0.1:{public}:8081", "127.0.0.1:{ops}:9181"]
    networks: [{name}, between]
"""
SETTINGS = """
[regions.{name}]
internal_url = "http://godwit-{name}:9081"
public_url = "http://127.0.0.1:{public}"
replication = "host=postgres-{name} port=5432 user=godwit_replication passfile=/tmp/pgpass dbname=godwit"
"""
SECRETS = [
    "superuser", "owner", "app", "reader", "control", "replication", "redis", "envelope",
    "owner-url", "app-url", "reader-url", "control-url", "redis-url", "pgpass", "primary",
]


def compose(listed, made):
    """The text of compose.yaml, with the laboratory's ports."""
    regions = {
        name: {"name": name, "public": 8081 + index, "ops": 9181 + index}
        for index, name in enumerate(listed["regions"])
    }

    def each(text):
        return "".join(text.format(**region) for region in regions.values())

    indented = "".join(f"      {line}" if line.strip() else line for line in each(SETTINGS).splitlines(True))
    return COMPOSE.format(
        made=made,
        primary=listed["primary"],
        names=" ".join(regions),
        urls="\n".join(f"#   http://127.0.0.1:{region['public']} ({region['name']})" for region in regions.values()),
        ops=", ".join(str(region["ops"]) for region in regions.values()),
        services=each(REGION).rstrip("\n").removeprefix("\n") + "\n",
        networks="\n".join(f"  {name}: {{internal: true}}" for name in regions),
        volumes="\n".join(f"  {kind}-{name}: {{}}" for name in regions for kind in ("postgres", "redis")),
        secrets="\n".join(f"  {name}: {{file: .godwit/compose/{name}}}" for name in SECRETS),
        settings=indented.rstrip("\n"),
    )
