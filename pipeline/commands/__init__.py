"""The command line's verbs and their options, by what they are about; the work is in `verbs`, imported when it runs."""
