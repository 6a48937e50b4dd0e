/** The bundled text of model/worker.js, which build.js puts in its place. */
declare const WORKER_SCRIPT: string;
