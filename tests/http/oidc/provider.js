// provider.js - an OpenID Connect provider (npm oidc-provider) with TLS: node provider.js PORT DIR CALLBACK
//
// DIR has tls.pem (key and certificate) and jwks.json. Whoever signs in as X is X@corp.example; the address of
// those whose name begins with "unverified" is not vouched for.
import fs from 'node:fs';
import https from 'node:https';
import Provider from 'oidc-provider';

const [port, dir, callback] = process.argv.slice(2);
const tls = fs.readFileSync(`${dir}/tls.pem`);

const provider = new Provider(`https://127.0.0.1:${port}`, {
  clients: [{ client_id: 'hutch', client_secret: 'a secret: with % and +', redirect_uris: [callback] }],
  jwks: JSON.parse(fs.readFileSync(`${dir}/jwks.json`)),
  cookies: { keys: ['test'] },
  claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['name'] },
  pkce: { methods: ['S256'], required: () => true },
  findAccount: (_, sub) => ({
    accountId: sub,
    claims: () => ({
      sub, name: `Person ${sub}`, email: `${sub}@corp.example`, email_verified: !sub.startsWith('unverified'),
    }),
  }),
});
https.createServer({ key: tls, cert: tls }, provider.callback()).listen(Number(port), '127.0.0.1', () => console.log('ready'));
