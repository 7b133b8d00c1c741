/** An empty chat: what this model was made for, as questions to click. */
import { Mark } from "../ui/icons";
import { send } from "./answering";

const EXAMPLES = ["How many r are in strawberry?", "What is 128 * 7?", "Spell the word: lighthouse", "Who are you?"];

export function Welcome() {
  return (
    <div class="welcome">
      <div class="column">
        <Mark size={52} />
        <h1>What would you like to know?</h1>
        <div class="examples">
          {EXAMPLES.map((text) => (
            <button key={text} type="button" class="example" onClick={() => send(text)}>
              {text}
            </button>
          ))}
        </div>
      </div>
    </div>
  );
}
