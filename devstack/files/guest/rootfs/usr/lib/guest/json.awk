# Prints a JSON document as lines of PATH<tab>VALUE, the path's parts parted by "/". Strings keep \n, \t and \\ as
# they are, for printf %b; other escapes are resolved.
function fail() { exit 1 }
function skip() { sub(/^[ \t\r\n]+/, "", rest) }
function string(   raw, out, hex) {
    if (!match(rest, /^"([^"\\]|\\.)*"/)) fail()
    raw = substr(rest, 2, RLENGTH - 2)
    rest = substr(rest, RLENGTH + 1)
    out = ""
    while (match(raw, /\\["\/u]/)) {
        out = out substr(raw, 1, RSTART - 1)
        if (substr(raw, RSTART + 1, 1) == "u") {
            hex = substr(raw, RSTART + 4, 2)
            out = out sprintf("\\0%03o", (index(digits, tolower(substr(hex, 1, 1))) - 1) * 16 + index(digits, tolower(substr(hex, 2, 1))) - 1)
            raw = substr(raw, RSTART + 6)
        } else {
            out = out substr(raw, RSTART + 1, 1)
            raw = substr(raw, RSTART + 2)
        }
    }
    return out raw
}
function value(path,   key, i) {
    skip()
    if (sub(/^\{/, "", rest)) {
        skip()
        if (sub(/^\}/, "", rest)) return
        while (1) {
            skip(); key = string(); skip()
            if (!sub(/^:/, "", rest)) fail()
            value(path == "" ? key : path "/" key)
            skip()
            if (sub(/^,/, "", rest)) continue
            if (sub(/^\}/, "", rest)) return
            fail()
        }
    } else if (sub(/^\[/, "", rest)) {
        skip()
        if (sub(/^\]/, "", rest)) return
        for (i = 0; ; i++) {
            value(path "/" i)
            skip()
            if (sub(/^,/, "", rest)) continue
            if (sub(/^\]/, "", rest)) return
            fail()
        }
    } else if (substr(rest, 1, 1) == "\"") {
        print path "\t" string()
    } else {
        if (!match(rest, /^[-+0-9.eEa-z]+/)) fail()
        print path "\t" substr(rest, 1, RLENGTH)
        rest = substr(rest, RLENGTH + 1)
    }
}
BEGIN { digits = "0123456789abcdef" }
{ rest = rest $0 "\n" }
END { value("") }
