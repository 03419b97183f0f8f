# A group of TensorFlow Serving nodes as plain processes, for machines without Docker: the agent
# from a virtual environment and an installed tensorflow_model_server.
#
#   nomad job run -var group=search -var repo=https://git.example.com/acme/models.git raw_exec.nomad.hcl
#
# One job a group; its id is tfserving-<group>. README.md starts from nothing. Host volumes do not
# exist for this driver, so both tasks use the machine's folders as they are.

variable "group" {
  type        = string
  description = "The group's name in the config repo: groups/<group>.yaml."
}

variable "repo" {
  type        = string
  description = "The config repo, as RECONCILER_REPO takes it."
}

variable "agent_command" {
  type    = string
  default = "/opt/reconciler/bin/reconciler"
}

variable "server_command" {
  type        = string
  default     = "/usr/bin/tensorflow_model_server"
  description = "The model server's program; arguments may follow it."
}

variable "agent_user" {
  type        = string
  default     = "reconciler"
  description = "Empty for the user that Nomad runs as."
}

variable "agent_uid" {
  type        = number
  default     = 10001
  description = "That user's number, who alone may read the secrets; -1 for the user that Nomad runs as."
}

variable "server_user" {
  type        = string
  default     = "tfserving"
  description = "Empty for the user that Nomad runs as."
}

variable "models_dir" {
  type    = string
  default = "/srv/reconciler/models"
}

variable "state_dir" {
  type    = string
  default = "/srv/reconciler/state"
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

    # Never give up: a system job's allocation that has failed is not placed again, and a server
    # must not go down because its agent has trouble.
    restart {
      attempts = 3
      interval = "1m"
      delay    = "5s"
      mode     = "delay"
    }

    task "agent" {
      driver       = "raw_exec"
      user         = var.agent_user
      kill_timeout = "10s"

      lifecycle {
        hook    = "prestart"
        sidecar = true
      }

      config {
        command = var.agent_command
        args    = ["run"]
      }

      env {
        RECONCILER_REPO            = var.repo
        RECONCILER_NODE            = "${node.unique.name}"
        RECONCILER_MODELS_DIR      = var.models_dir
        RECONCILER_STATE_DIR       = var.state_dir
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
        uid                  = var.agent_uid
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
        uid         = var.agent_uid

        data = <<-EOT
          {{- with nomadVar "nomad/jobs/tfserving-${var.group}" }}{{ with .sync_token }}{{ . }}{{ end }}{{ end -}}
        EOT
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/gcs-key.json"
        change_mode = "restart"
        perms       = "0400"
        uid         = var.agent_uid

        data = <<-EOT
          {{- with nomadVar "nomad/jobs/tfserving-${var.group}" }}{{ with .gcs_key }}{{ . }}{{ end }}{{ end -}}
        EOT
      }

      template {
        destination = "${NOMAD_SECRETS_DIR}/nomad-token"
        change_mode = "noop"
        perms       = "0400"
        uid         = var.agent_uid

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
      driver         = "raw_exec"
      user           = var.server_user
      shutdown_delay = "10s" # callers learn that it goes before it does: it has no graceful end
      kill_timeout   = "5s"

      config {
        command = "/bin/sh"

        # It does not start without the file, which the agent writes on its first start.
        args = [
          "-ec",
          "until [ -s '${var.models_dir}/models.config' ]; do sleep 1; done; exec ${var.server_command} \"$@\"",
          "tensorflow_model_server",
          "--port=${NOMAD_PORT_grpc}",
          "--rest_api_port=${NOMAD_PORT_rest}",
          "--model_config_file=${var.models_dir}/models.config",
          "--model_config_file_poll_wait_seconds=0",
          "--file_system_poll_wait_seconds=1",
          "--allow_version_labels_for_unavailable_models=true",
          "--num_load_threads=2",
          "--num_unload_threads=2",
          "--max_num_load_retries=1",
          "--load_retry_interval_micros=1000000",
        ]
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
