#!/bin/sh
# make run-shared STORE=postgresql|redis|etcd: a store from Debian's package, two nodes, and nginx.
#
#     deploy/shared-store/nodes.sh run STORE     all of it, in the foreground; Ctrl-C ends it
#     deploy/shared-store/nodes.sh PART          what deploy/shared-store/nodes.conf runs as each part
#
# Everything listens on the loopback only: nginx at FIB_PORT (8080), the nodes at the next two ports,
# and the store at the two after those. The data is kept in var/shared-store/STORE.
set -eu
cd "$(dirname "$0")/../.."
umask 077

fail() {
    echo "fibcore: $*" >&2
    exit 69  # EX_UNAVAILABLE
}

# Runs an engine as the user that its package creates, if this is root: engines refuse to run as root.
as() {
    user=$1
    shift
    cd "$DATA"
    if [ "$(id -u)" = 0 ]; then
        chown -R "$user:" "$DATA"
        exec setpriv --reuid="$user" --regid="$user" --clear-groups "$@"
    fi
    exec "$@"
}

start_postgresql() {
    bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
    if [ ! -e "$DATA/PG_VERSION" ]; then
        (as postgres "$bin/initdb" --auth=trust --username=fibcore --encoding=UTF8 --locale=C \
            --pgdata="$DATA")
    fi
    # It listens only on a socket in that folder: its permissions are those of the folder.
    as postgres "$bin/postgres" -D "$DATA" -c listen_addresses= -c unix_socket_directories="$DATA" \
        -c port="$STORE_PORT"
}

start_redis() {
    as redis redis-server --port "$STORE_PORT" --bind 127.0.0.1 --dir "$DATA" \
        --appendonly yes --appendfsync always --save ""
}

start_etcd() {
    here=http://127.0.0.1:$STORE_PORT
    as etcd etcd --data-dir "$DATA" --listen-client-urls "$here" --advertise-client-urls "$here" \
        --listen-peer-urls "http://127.0.0.1:$((STORE_PORT + 1))" \
        --auto-compaction-mode revision --auto-compaction-retention 1000 --log-level warn
}

case ${1-} in
run)
    case ${2-} in
    postgresql) package=postgresql program=/usr/lib/postgresql/*/bin/postgres ;;
    redis) package=redis-server program=$(command -v redis-server || true) ;;
    etcd) package=etcd-server program=$(command -v etcd || true) ;;
    *) fail "make run-shared takes STORE=postgresql, STORE=redis or STORE=etcd." ;;
    esac
    # 55 bytes: the path of a Unix socket has 107, and those below var/shared-store take the rest.
    case $PWD in *[!A-Za-z0-9/._-]*) long=56 ;; *) long=${#PWD} ;; esac
    [ "$long" -le 55 ] ||
        fail "The parts of this example can't run in the folder $PWD. Nothing has been started. Move" \
            "this checkout to a path of at most 55 characters: letters, digits, and / . _ -"
    # shellcheck disable=SC2086
    ls $program >/dev/null 2>&1 && [ -n "$program" ] ||
        fail "$2 is missing. Nothing has been started. On Debian: apt-get install $package"
    PATH=$PATH:/usr/sbin
    command -v nginx >/dev/null ||
        fail "nginx is missing. Nothing has been started. On Debian: apt-get install nginx-light"
    PORT=${FIB_PORT:-8080}
    case $PORT in *[!0-9]*) fail "FIB_PORT is '$PORT'; it must be a number. Nothing has been started." ;; esac
    STORE_PORT=$((PORT + 3))
    .venv/bin/python - "$PORT" "$2" <<'END' || exit
import socket, sys
for number, user in enumerate(("nginx", "the first node", "the second node", sys.argv[2], sys.argv[2])):
    port = int(sys.argv[1]) + number
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except (OSError, OverflowError) as error:
        print(f"fibcore: Port {port} of 127.0.0.1, for {user}, is unavailable: {error}. Nothing has been "
              "started. Stop the program that uses it, or set FIB_PORT to the first of five free ports.", file=sys.stderr)
        sys.exit(69)
END
    export PATH PORT STORE="$2" STORE_PORT FOLDER="$PWD/var/shared-store/$2"
    export DATA="$FOLDER/data"
    case $STORE in
    postgresql) FIB_STORE="postgresql://fibcore@/postgres?host=$DATA&port=$STORE_PORT" ;;
    *) FIB_STORE="$STORE://127.0.0.1:$STORE_PORT" ;;
    esac
    export FIB_STORE
    mkdir -p "$FOLDER/log" "$DATA"
    # The engine's user must be able to reach its folder.
    [ "$(id -u)" != 0 ] || chmod 711 var var/shared-store "$FOLDER"
    # So that `fibcore` uses this sequence in that folder.
    printf '%s\n' "FIB_STORE=$FIB_STORE" "FIB_PORT=$PORT" >"$FOLDER/fibcore.conf"
    {
        echo "daemon off; master_process off; pid $FOLDER/nginx.pid; error_log stderr; events { } http {"
        echo "access_log off; client_body_temp_path $FOLDER; proxy_temp_path $FOLDER;"
        echo "fastcgi_temp_path $FOLDER; uwsgi_temp_path $FOLDER; scgi_temp_path $FOLDER;"
        sed "s/:8080;/:$PORT;/; s/:8081/:$((PORT + 1))/; s/:8082/:$((PORT + 2))/" \
            deploy/shared-store/nginx.conf
        echo "}"
    } >"$FOLDER/nginx.conf"
    echo "Starting nginx at http://127.0.0.1:$PORT in front of two nodes (ports $((PORT + 1)) and" \
        "$((PORT + 2))) on $STORE; Ctrl-C stops all."
    echo "The logs are in $FOLDER/log. In another terminal:"
    echo "    cd var/shared-store/$STORE && ../../../.venv/bin/fibcore show"
    echo "    FOLDER=$FOLDER .venv/bin/supervisorctl -c deploy/shared-store/nodes.conf status"
    # Each start and end of a part, until this process, which becomes supervisord, exits.
    touch "$FOLDER/log/supervisord.log"
    setpriv --pdeathsig TERM tail -n 0 -F "$FOLDER/log/supervisord.log" 2>/dev/null |
        sed -un 's/.* [A-Z]* \(\(spawned\|exited\|stopped\): .*\)/\1/p' &
    exec .venv/bin/supervisord --silent -c deploy/shared-store/nodes.conf
    ;;
store) "start_$STORE" ;;
node)
    # The first node creates the sequence; init fails until the store has started.
    until .venv/bin/fibcore init; do sleep 0.2; done
    export FIB_PORT=$((PORT + $2))
    exec .venv/bin/python -m web
    ;;
nginx) exec nginx -p "$FOLDER" -c "$FOLDER/nginx.conf" -e stderr ;;
*) fail "deploy/shared-store/nodes.sh run STORE" ;;
esac
