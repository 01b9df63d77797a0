// What `sandhog build` makes a component of. What the sandbox gives must be there before the handler's modules are run.
import "./host.js";
{{granted}}import { serve } from "{{sdk}}";
import * as module from "{{source}}";

export const { handler, context, failureHook } = serve(module);
