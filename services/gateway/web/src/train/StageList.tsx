/** A pipeline's stages as a row of steps; a click shows one. */
import type { Job } from "../api/types";
import { Icon } from "../ui/icons";
import { ProgressBar } from "./JobProgress";
import { stageName } from "./jobs";

interface Props {
  pipeline: Job;
  stages: readonly Job[];
  shownId?: string | undefined;
  onShow?: (id: string) => void;
}

export function StageList({ pipeline, stages, shownId, onShow }: Props) {
  return (
    <ol class="stages">
      {stages.map((stage, index) => (
        <li key={stage.id} class={`stage is-${stage.status}${stage.id === shownId ? " is-shown" : ""}`}>
          <Step isButton={onShow !== undefined} isShown={stage.id === shownId} onClick={() => onShow?.(stage.id)}>
            <span class="stage-mark" aria-hidden="true">
              {stage.status === "succeeded" ? <Icon name="check" size={13} /> : stage.status === "failed" ? "!" : index + 1}
            </span>
            <span class="stage-name">{stageName(stage, pipeline)}</span>
            <span class="visually-hidden">{stage.status}</span>
          </Step>
          <ProgressBar ratio={stage.progress.ratio} status={stage.status} label={`Progress of ${stageName(stage, pipeline)}`} />
        </li>
      ))}
    </ol>
  );
}

interface StepProps {
  isButton: boolean;
  isShown: boolean;
  onClick: () => void;
  children: preact.ComponentChildren;
}

function Step({ isButton, isShown, onClick, children }: StepProps) {
  if (!isButton) return <span class="stage-head">{children}</span>;
  return (
    <button type="button" class="stage-head" aria-pressed={isShown} onClick={onClick}>
      {children}
    </button>
  );
}
