package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// bashAlone lets the script for bash work without the package bash-completion, whose two functions it calls. They are simpler than
// that package's and stand back where it is loaded.
const bashAlone = `# What the package bash-completion would bring, where it is not installed.
if ! declare -F _get_comp_words_by_ref >/dev/null; then
    # bash splits words at "=" and ":"; this joins what has no blank between.
    _get_comp_words_by_ref() {
        local i word rest line=$COMP_LINE
        words=() cword=0
        for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
            word=${COMP_WORDS[i]}
            rest=${line#"${line%%[![:space:]]*}"}
            if ((i > 0)) && [[ $rest == "$line" ]]; then
                words[${#words[@]}-1]+=$word
            else
                words+=("$word")
            fi
            line=${rest#"$word"}
            ((i == COMP_CWORD)) && cword=$((${#words[@]} - 1))
        done
        cur=${words[cword]} prev=
        ((cword > 0)) && prev=${words[cword-1]}
    }
fi
if ! declare -F __ltrim_colon_completions >/dev/null; then
    __ltrim_colon_completions() {
        local i front=${1%"${1##*:}"}
        [[ $1 == *:* && $COMP_WORDBREAKS == *:* ]] || return 0
        for i in "${!COMPREPLY[@]}"; do
            COMPREPLY[i]=${COMPREPLY[i]#"$front"}
        done
    }
fi

`

// BashCompletion writes the completion script for bash.
func BashCompletion(root *cobra.Command, w io.Writer) error {
	if _, err := io.WriteString(w, bashAlone); err != nil {
		return err
	}
	return root.GenBashCompletionV2(w, true)
}
