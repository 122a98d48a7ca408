# What docs/RUNBOOK.md demands of Postgres, where RDS lets it be said. The same in every region: any may become the
# primary. wal_level, wal_log_hints, checksums and the slots' names are RDS' own.

locals {
  # Needs no restart. name => value
  replayed = {
    # A replica's reads are not ended by what the primary cleans up ...
    "hot_standby_feedback" = "1"
    # ... and hold replay up for less than routing.bookmark_wait_ms_max (500), so that a read that waits gets its turn.
    "max_standby_streaming_delay" = "400"
    # A replica that is away does not fill the primary's disk: past this it is made anew.
    "max_slot_wal_keep_size" = tostring(var.global.slot_wal_keep_mib)
  }
  # Slow statements, and none for what it is: that would log CREATE ROLE with its password.
  watched = {
    "rds.force_ssl"                       = "1"
    "log_min_duration_statement"          = "1000"
    "log_lock_waits"                      = "1"
    "log_connections"                     = "1"
    "log_disconnections"                  = "1"
    "log_temp_files"                      = "10240"
    "idle_in_transaction_session_timeout" = "60000"
  }
  # Taken up by a restart. A standby whose value is lower than its primary's stops replaying, so none of these is left to
  # a formula of the instance's size.
  sized = {
    "max_connections"           = tostring(var.global.connections_max)
    "max_wal_senders"           = "20"
    "max_replication_slots"     = "20"
    "max_worker_processes"      = "16"
    "max_prepared_transactions" = "0"
    "max_locks_per_transaction" = "64"
  }
}

resource "aws_db_parameter_group" "global" {
  count       = local.rds ? 1 : 0
  name_prefix = "godwit-${var.region}-global-"
  family      = "postgres${var.global.engine_version}"
  description = "Godwit's global database: the same in every region."
  tags        = local.tags

  dynamic "parameter" {
    for_each = merge(local.replayed, local.watched)
    content {
      name  = parameter.key
      value = parameter.value
    }
  }

  dynamic "parameter" {
    for_each = local.sized
    content {
      name         = parameter.key
      value        = parameter.value
      apply_method = "pending-reboot"
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_db_parameter_group" "regional" {
  name_prefix = "godwit-${var.region}-regional-"
  family      = "postgres${var.regional.engine_version}"
  description = "Godwit's regional database."
  tags        = local.tags

  dynamic "parameter" {
    for_each = local.watched
    content {
      name  = parameter.key
      value = parameter.value
    }
  }

  lifecycle {
    create_before_destroy = true
  }
}

# Aurora replicates below Postgres: what concerns streaming does not exist there.
resource "aws_rds_cluster_parameter_group" "global" {
  count       = local.aurora ? 1 : 0
  name_prefix = "godwit-${var.region}-global-"
  family      = "aurora-postgresql${split(".", var.global.engine_version)[0]}"
  description = "Godwit's global database: the same in every region."
  tags        = local.tags

  dynamic "parameter" {
    for_each = local.watched
    content {
      name  = parameter.key
      value = parameter.value
    }
  }

  parameter {
    name         = "max_connections"
    value        = tostring(var.global.connections_max)
    apply_method = "pending-reboot"
  }

  lifecycle {
    create_before_destroy = true
  }
}
