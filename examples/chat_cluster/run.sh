#!/bin/sh
# The chat in three processes, and nginx with TLS in front of them. Ctrl-C ends all.
#
# In the environment: REDIS_URL says where Redis is, PORT where nginx listens, and FOLDER where all that is made
# here is kept; a certificate that is there already, chain.pem with key.pem, is used.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
processes=
made=$(mktemp -d)
trap 'kill $processes 2>/dev/null || true; wait; rm -r "$made"' EXIT
trap exit INT TERM
cd "${FOLDER:-$made}"
PATH=$PATH:/usr/sbin # where Debian has nginx

[ -e chain.pem ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
    -subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out chain.pem
cp "$here/page.html" .
sed "s/8443/${PORT:=8443}/" "$here/nginx.conf" >nginx.conf

for number in 1 2 3; do
    python "$here/chat.py" "$number.sock" &
    processes="$processes $!"
done
# Who runs this as root has sockets that no other user may open.
[ "$(id -u)" = 0 ] && user="user root;" || user=
nginx -p "$PWD" -e stderr -c nginx.conf -g "daemon off; $user" &
processes="$processes $!"
echo "https://localhost:$PORT/"
for process in $processes; do
    wait "$process" # where there is no Redis it fails, and all end
done
