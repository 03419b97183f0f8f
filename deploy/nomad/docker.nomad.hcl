# A group of TensorFlow Serving nodes as Docker containers: on every Nomad client whose meta says
# `reconciler_group = "<group>"`, the agent and, beside it, the model server that it looks after.
#
#   nomad job run -var group=search -var repo=https://git.example.com/acme/models.git docker.nomad.hcl
#
# One job a group; its id is tfserving-<group>. README.md starts from nothing.

variable "group" {
  type        = string
  description = "The group's name in the config repo: groups/<group>.yaml."
}

variable "repo" {
  type        = string
  description = "The config repo, as RECONCILER_REPO takes it."
}

variable "agent_image" {
  type    = string
  default = "reconciler:0.1.0"
}

variable "server_image" {
  type    = string
  default = "tensorflow/serving:2.20.0"
}

variable "status_port" {
  type    = number
  default = 8080
}

variable "grpc_port" {
  type    = number
  default = 8500
}

variable "rest_port" {
  type    = number
  default = 8501
}

variable "server_cpu_mhz" {
  type    = number
  default = 4000
}

variable "server_memory_mb" {
  type        = number
  default     = 8192
  description = "For all models of the group and, while one is exchanged, for its two versions."
}

job "tfserving" {
  id   = "tfserving-${var.group}"
  name = "tfserving-${var.group}"
  type = "system"

  constraint {
    attribute = "${meta.reconciler_group}"
    value     = var.group
  }

  # One machine after the other, and back to the job before if one does not come up. System jobs
  # obey all of this from Nomad 1.11 on; older ones take max_parallel and stagger alone.
  update {
    max_parallel      = 1
    stagger           = "1m"
    health_check      = "checks"
    min_healthy_time  = "15s"
    healthy_deadline  = "30m" # the server's port opens when all its models are loaded
    progress_deadline = "35m"
    auto_revert       = true
  }

  group "node" {
    # The tasks talk over the machine's own loopback, and callers reach the server without a
    # translation of addresses in between.
    network {
      mode = "host"

      port "status" {
        static = var.status_port
      }

      port "grpc" {
        static = var.grpc_port
      }

      port "rest" {
        static = var.rest_port
      }
    }

    volume "models" {
      type   = "host"
      source = "reconciler-models"
    }

    volume "state" {
      type   = "host"
      source = "reconciler-state"
    }

    # Never give up: a system job's allocation that has failed is not placed again, and a server
    # must not go down because its agent has trouble.
    restart {
      attempts = 3
      interval = "1m"
      delay    = "5s"
      mode     = "delay"
    }

    task "agent" {
      driver       = "docker"
      user         = "10001:10001"
      kill_timeout = "10s"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        image           = var.agent_image
        network_mode    = "host"
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        security_opt    = ["no-new-privileges"]

        mount {
          type   = "tmpfs"
          target = "/tmp"

          tmpfs_options {
            size = 67108864 # bytes
          }
        }
      }

      volume_mount {
        volume      = "models"
        destination = "/var/lib/reconciler/models"
      }

      volume_mount {
        volume      = "state"
        destination = "/var/lib/reconciler/state"
      }

      env {
        RECONCILER_REPO            = var.repo
        RECONCILER_NODE            = "${node.unique.name}"
        RECONCILER_MODELS_DIR      = "/var/lib/reconciler/models"
        RECONCILER_STATE_DIR       = "/var/lib/reconciler/state"
        RECONCILER_SERVING         = "127.0.0.1:${NOMAD_PORT_grpc}"
        RECONCILER_LISTEN          = "${NOMAD_ADDR_status}"
        RECONCILER_GIT_TOKEN_FILE  = "${NOMAD_SECRETS_DIR}/git-token"
        RECONCILER_SYNC_TOKEN_FILE = "${NOMAD_SECRETS_DIR}/sync-token"
        RECONCILER_LOG_FORMAT      = "json"
      }

      # Secrets come from the Nomad variable nomad/jobs/tfserving-<group>, which this job may read.
      # The agent reads its token files anew each time, so that a new token needs no restart.
      template {
        destination          = "${NOMAD_SECRETS_DIR}/git-token"
        change_mode          = "noop"
        perms                = "0400"
        uid                  = 10001
        gid                  = 10001
        error_on_missing_key = true

        data = <<-EOT
          {{- with nomadVar "nomad/jobs/tfserving-${var.group}" }}{{ .git_token }}{{ end -}}
        EOT
      }

      # The other secrets may be absent: without a sync token POST /sync is refused, without a key
      # the machine's own Google account is used.
      template {
        destination = "${NOMAD_SECRETS_DIR}/sync-token"
        change_mode = "noop"
        perms       = "0400"
        uid         = 10001
        gid         = 10001

        data = <<-EOT
          {{- with nomadVar "nomad/jobs/tfserving-${var.group}" }}{{ with .sync_token }}{{ . }}{{ end }}{{ end -}}
        EOT
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/gcs-key.json"
        change_mode = "restart"
        perms       = "0400"
        uid         = 10001
        gid         = 10001

        data = <<-EOT
          {{- with nomadVar "nomad/jobs/tfserving-${var.group}" }}{{ with .gcs_key }}{{ . }}{{ end }}{{ end -}}
        EOT
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/nomad-token"
        change_mode = "noop"
        perms       = "0400"
        uid         = 10001
        gid         = 10001

        data = <<-EOT
          {{- with nomadVar "nomad/jobs/tfserving-${var.group}" }}{{ with .nomad_token }}{{ . }}{{ end }}{{ end -}}
        EOT
      }

      # Names the files of those that are there.
      template {
        destination = "${NOMAD_SECRETS_DIR}/named.env"
        env         = true
        change_mode = "restart"

        data = <<-EOT
          {{ with nomadVar "nomad/jobs/tfserving-${var.group}" }}
          {{ with .gcs_key }}GOOGLE_APPLICATION_CREDENTIALS={{ env "NOMAD_SECRETS_DIR" }}/gcs-key.json{{ end }}
          {{ with .nomad_token }}RECONCILER_NOMAD_TOKEN_FILE={{ env "NOMAD_SECRETS_DIR" }}/nomad-token{{ end }}
          {{ end }}
        EOT
      }

      service {
        name     = "reconciler-${var.group}"
        provider = "nomad"
        port     = "status"

        # 503 once the loop has stood still for a minute: only a new process helps.
        check {
          name     = "livez"
          type     = "http"
          path     = "/livez"
          interval = "10s"
          timeout  = "3s"

          check_restart {
            limit = 3
            grace = "90s"
          }
        }

        check {
          name     = "readyz"
          type     = "http"
          path     = "/readyz"
          interval = "10s"
          timeout  = "3s"
        }
      }

      resources {
        cpu    = 500
        memory = 512
      }
    }

    task "server" {
      driver         = "docker"
      user           = "10002:10001"
      shutdown_delay = "10s" # callers learn that it goes before it does: it has no graceful end
      kill_timeout   = "5s"

      config {
        image           = var.server_image
        network_mode    = "host"
        init            = true # as the first process it would not obey SIGTERM
        readonly_rootfs = true
        cap_drop        = ["ALL"]
        security_opt    = ["no-new-privileges"]
        entrypoint      = ["/bin/sh", "-ec"]

        # It does not start without the file, which the agent writes on its first start.
        args = [
          "until [ -s /var/lib/reconciler/models/models.config ]; do sleep 1; done; exec tensorflow_model_server \"$@\"",
          "tensorflow_model_server",
          "--port=${NOMAD_PORT_grpc}",
          "--rest_api_port=${NOMAD_PORT_rest}",
          "--model_config_file=/var/lib/reconciler/models/models.config",
          "--model_config_file_poll_wait_seconds=0",
          "--file_system_poll_wait_seconds=1",
          "--allow_version_labels_for_unavailable_models=true",
          "--num_load_threads=2",
          "--num_unload_threads=2",
          "--max_num_load_retries=1",
          "--load_retry_interval_micros=1000000",
        ]

        mount {
          type   = "tmpfs"
          target = "/tmp"

          tmpfs_options {
            size = 67108864 # bytes
          }
        }
      }

      volume_mount {
        volume      = "models"
        destination = "/var/lib/reconciler/models"
        read_only   = true
      }

      service {
        name     = "tensorflow-serving-${var.group}"
        provider = "nomad"
        port     = "grpc"

        # The port opens when every model of models.config is loaded.
        check {
          name     = "open"
          type     = "tcp"
          interval = "10s"
          timeout  = "3s"
        }
      }

      service {
        name     = "tensorflow-serving-${var.group}-rest"
        provider = "nomad"
        port     = "rest"
      }

      resources {
        cpu    = var.server_cpu_mhz
        memory = var.server_memory_mb
      }
    }
  }
}
