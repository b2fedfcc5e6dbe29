#!/usr/bin/env bash
# Kubo 0.43.1: `POST /api/v0/add` takes the file name of an upload for a path, and pins the folder around the file.
#
# A file name with a slash is valid in multipart/form-data, where it is a label. Kubo adds a folder for each part before
# the last, one more JSON line per folder, and pins the outermost. A client that reads the last line as the file's hash
# gets that of a folder.
#
# Seen, for the same eight bytes:
#   file name      lines  last line
#   result.json    1      result.json  QmRyddGkVVdhn3HjPGVoDDnTKoXjwb5NCXUtvJJ7wf1KF9
#   a/result.json  2      a            QmfJUF9zVNU1DyoMsTBLwnjchDTCAHHxP2fZ6CXr8r9sf7 (a folder)
#
# What to do: upload under a fixed file name; `pin-name` names the pin.
#
# Needs Go 1.26 (about four CPU minutes for the first build).
set -euo pipefail
work=$(mktemp -d)
daemon=
stop() {
    if [ -n "$daemon" ]; then kill "$daemon" && wait "$daemon" || true; fi
    rm -rf "$work"
}
trap stop EXIT
# Kubo's go.mod replaces go-libp2p with a fork, so `go install` refuses it; with these two it builds without the fork.
cat >"$work/go.mod" <<'MODULE'
module finding.invalid/kubo

go 1.26.0

require github.com/ipfs/kubo v0.43.1

replace (
	github.com/quic-go/quic-go => github.com/quic-go/quic-go v0.60.0
	github.com/quic-go/webtransport-go => github.com/quic-go/webtransport-go v0.11.1
)
MODULE
(cd "$work" && CGO_ENABLED=0 GOFLAGS=-mod=mod GOWORK=off go build -trimpath -ldflags "-s -w" -buildvcs=false \
    -o ipfs github.com/ipfs/kubo/cmd/ipfs 2>build.log) || { tail -5 "$work/build.log"; exit 1; }
export IPFS_PATH=$work/repository IPFS_TELEMETRY=off
"$work/ipfs" init --empty-repo >"$work/init.log"
"$work/ipfs" config --json Addresses '{"API": "/ip4/127.0.0.1/tcp/0", "Gateway": [], "Swarm": []}'
"$work/ipfs" daemon --offline >"$work/daemon.log" 2>&1 &
daemon=$!
for _ in $(seq 300); do
    grep -q "Daemon is ready" "$work/daemon.log" && break
    sleep 0.1
done
api="http://127.0.0.1:$(sed 's|.*/tcp/||' "$IPFS_PATH/api")"
printf '{"a": 1}' >"$work/data"
echo "kubo $("$work/ipfs" version --number)"
for name in result.json a/result.json; do
    curl -sS -X POST -F "file=@$work/data;filename=$name" "$api/api/v0/add?quieter=true&pin=true" | tee "$work/answer"
    lines=$(grep -c Hash "$work/answer")
    last=$(tail -1 "$work/answer" | sed 's/.*"Name":"\([^"]*\)","Hash":"\([^"]*\)".*/\1 \2/')
    echo "$name: $lines lines, the last is $last" | tee -a "$work/seen"
done
diff - "$work/seen" <<'EXPECTED'
result.json: 1 lines, the last is result.json QmRyddGkVVdhn3HjPGVoDDnTKoXjwb5NCXUtvJJ7wf1KF9
a/result.json: 2 lines, the last is a QmfJUF9zVNU1DyoMsTBLwnjchDTCAHHxP2fZ6CXr8r9sf7
EXPECTED
