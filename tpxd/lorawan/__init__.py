"""The field's words, pure: reports, tokens, patterns, durations. Nothing here awaits, opens or logs."""
