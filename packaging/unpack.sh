#!/bin/sh
# odingw @VERSION@, for Linux on @MACHINE@ with glibc @GLIBC@ or newer. After the last line of this
# text comes the program, packed by tar and gzip. It is unpacked once for each user, and then runs as
# this very process: signals, and systemd's sockets and notifications, belong to a process id.
id=@ID@
files=@FILES@
start=@START@

say() { echo "odingw: $*" >&2; }

# complete FOLDER: whether the program is there, and the user's own; a cleaner may have taken some of
# it away.
complete() {
    [ -O "$1" ] && [ -O "$1/odingw" ] && [ -x "$1/odingw" ] && [ "$(find "$1" -type f | wc -l)" -eq "$files" ]
}

# own FOLDER: make it if need be; nobody else must be able to put anything there.
own() {
    mkdir -p "$1" 2>/dev/null
    [ -d "$1" ] && [ ! -L "$1" ] && [ -O "$1" ] && [ -w "$1" ] &&
        [ -z "$(find "$1" -prune -perm /022)" ]
}

# unpack FOLDER: have the program in FOLDER/ID. Others may do the same at this moment.
unpack() {
    complete "$1/$id" && return
    new=$(mktemp -d "$1/new.XXXXXX") || return
    trap 'rm -rf "$new"' EXIT
    trap 'exit 1' HUP INT TERM
    tail -n "+$start" "$0" | gzip -dc | tar -xof - -C "$new" || return
    chmod 755 "$new"
    complete "$new" || return
    mv -T "$new" "$1/$id" 2>/dev/null && return
    complete "$1/$id" && return
    rm -rf "$1/$id"
    mv -T "$new" "$1/$id"
}

# find_place: print the first folder in which the program is, or can be unpacked.
find_place() {
    umask 077
    # An empty entry would be the working directory.
    PATH=${PATH:+$PATH:}/usr/bin:/bin
    user=$(id -u)
    home=${HOME:-}
    [ -n "$home" ] && [ -O "$home" ] || home=''
    for place in "${ODINGW_UNPACK:-}" "${CACHE_DIRECTORY%%:*}" \
        "${XDG_CACHE_HOME:+$XDG_CACHE_HOME/odingw}" "${home:+$home/.cache/odingw}" \
        "/var/tmp/odingw-$user" "/tmp/odingw-$user"; do
        case $place in
        /*) own "$place" && (unpack "$place") && echo "$place" && return ;;
        esac
    done
    say 'nowhere to unpack: set ODINGW_UNPACK to a folder of your own, with room, without noexec'
    return 1
}

place=$(find_place) || exit 1
# The start of the program itself wants a library (zlib) that is here, and perhaps nowhere else.
export LD_LIBRARY_PATH="$place/$id/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$place/$id/odingw" "$@"
exit 1
