#compdef jcache
# Completion of jcache in zsh: what click, which knows the commands, says to do.
eval "$(_JCACHE_COMPLETE=zsh_source jcache)"
_jcache_completion "$@"
