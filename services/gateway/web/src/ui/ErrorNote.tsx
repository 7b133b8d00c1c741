/** An error with what to do about it, and the buttons to do it. */
import { adviceFor } from "../api/errors";
import { askForKey } from "../api/key";

interface Props {
  error: { status: number; code: string; message: string };
  onRetry?: () => void;
}

export function ErrorNote({ error, onRetry }: Props) {
  const wantsKey = error.status === 401 || error.status === 403;
  const enterKey = async (): Promise<void> => {
    if (await askForKey(true)) onRetry?.();
  };
  return (
    <div class="error-note" role="alert">
      <p>
        {error.message} {adviceFor(error)}
      </p>
      <div class="row">
        {wantsKey && (
          <button type="button" class="button small" onClick={() => void enterKey()}>
            Enter a key
          </button>
        )}
        {onRetry && (
          <button type="button" class="button small" onClick={onRetry}>
            Retry
          </button>
        )}
      </div>
    </div>
  );
}
